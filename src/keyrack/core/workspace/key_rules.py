"""Compares a workspace file's accepted, revoked and frozen keys with the workspace; must change nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from keyrack.core import validation
from keyrack.core.keys import access, freezes, key_policy, key_rules, revocation
from keyrack.core.workspace.changes import Comparison, Execution
from keyrack.core.workspace.wanted import WantedKeyPolicy, WantedRevocation
from keyrack.protocol.words import count
from keyrack.store.keys.key_policy import KeyPolicyRow


def compare_key_policy(comparison: Comparison) -> Callable[[], None]:
    """Plan which keys are accepted; answers a function that plans the rest, to be called after all keys of the file.

    A wider policy is set first, so that the keys of the file can be entered. A stricter one is set last: the workspace
    that was exported may have keys from before it was set.
    """
    wanted, known = comparison.wanted.key_policy, comparison.state.key_policy
    if wanted is None or (known and known.holds and (known.key_types, known.rsa_minimum_bits) == _fields(wanted)):
        return lambda: None
    started = comparison.instance.key_rules
    after = key_rules.stricter(started, KeyPolicyRow(*_fields(wanted), None, ""))
    # A policy that was changed in the database does not show what was accepted before.
    before = after if known is not None and not known.holds else key_rules.stricter(started, known)
    least_bits = min(before.rsa_minimum_bits, after.rsa_minimum_bits)
    meanwhile = comparison.key_rules = replace(started, types=before.types | after.types, rsa_minimum_bits=least_bits)
    if meanwhile == after:
        if known is not None or _fields(wanted) != ((), None):
            _accept(comparison, wanted)
        return lambda: None
    if meanwhile != before:
        _accept(comparison, WantedKeyPolicy(tuple(sorted(meanwhile.types)), meanwhile.rsa_minimum_bits))
    return lambda: _accept(comparison, wanted)


def _fields(wanted: WantedKeyPolicy) -> tuple[tuple[str, ...], int | None]:
    return wanted.types, wanted.rsa_minimum_bits


def _accept(comparison: Comparison, wanted: WantedKeyPolicy) -> None:
    comparison.do(
        f"accept keys {wanted.words}",
        lambda execution: key_policy.put(
            execution.instance, execution.actor, types=wanted.types or None, rsa_minimum_bits=wanted.rsa_minimum_bits
        ),
    )


def compare_revoked_keys(comparison: Comparison) -> None:
    """Plan that the file's revoked keys are revoked here; only people lift that again."""
    known = {one.fingerprint for one in comparison.state.revoked_keys}
    for wanted in comparison.wanted.revoked_keys:
        if wanted.fingerprint not in known:
            comparison.do(f"revoke key {wanted.fingerprint} everywhere", _revoking(wanted))


def compare_frozen_keys(comparison: Comparison) -> None:
    """Plan that the file's frozen keys are frozen here. Keys that the file does not freeze stay as they are."""
    fingerprints, places = [], []
    marks = [server.frozen_at for server in comparison.state.servers.values()]
    for user in comparison.wanted.users:
        known = comparison.state.users.get(user.name)
        known_keys = comparison.state.user_keys.get(known.id, ()) if known else ()
        frozen = {key.fingerprint for key in known_keys if access.is_marked_frozen(key, marks)}
        declared = (key.public_key for key in user.keys if key.frozen)
        wanted = [validation.parsed_key(comparison.instance, public_key).fingerprint for public_key in declared]
        fingerprints += [fingerprint for fingerprint in wanted if fingerprint not in frozen]
    for server in comparison.wanted.servers:
        host = comparison.matched.get(server.name)
        known_credentials = comparison.state.credentials.get(host.id, ()) if host else ()
        labels = {one.label for one in known_credentials if host and access.is_marked_frozen(one, [host.frozen_at])}
        places += [(server.name, one.label) for one in server.credentials if one.frozen and one.label not in labels]
    if fingerprints or places:
        comparison.do(
            f"freeze {count(len(fingerprints), 'SSH key')} of users and {len(places)} on servers "
            "until they are confirmed",
            lambda execution: freezes.freeze_some(
                execution.instance,
                execution.actor,
                fingerprints=fingerprints,
                held=[(execution.servers[name], label) for name, label in places],
            ),
        )


def _revoking(wanted: WantedRevocation) -> Callable[[Execution], object]:
    return lambda execution: revocation.revoke_everywhere(
        execution.instance, execution.actor, wanted.fingerprint, reason=wanted.reason, unknown=True
    )
