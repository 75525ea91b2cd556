"""What a workspace file says of which keys are accepted, revoked or frozen, compared with the workspace; must change
nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from keyrack.core import validation
from keyrack.core.keys import freezes, key_policy, key_rules, revocation
from keyrack.core.workspace.changes import Comparison, Execution
from keyrack.core.workspace.wanted import WantedKeyPolicy, WantedRevocation
from keyrack.model import Credential, UserKey
from keyrack.protocol.words import count
from keyrack.store.keys import terms
from keyrack.store.keys.key_policy import KeyPolicyRow


def compare_key_policy(comparison: Comparison) -> Callable[[], None]:
    """Add to the plan which keys are accepted; answers what adds the rest of it, behind all keys that the file names.

    What is accepted beside what is now comes first, so that such keys can be entered; what is not accepted any more
    comes last, as those that were registered before stay in the workspace that a file was exported from.
    """
    wanted, known = comparison.wanted.key_policy, comparison.state.key_policy
    if wanted is None or (known and known.holds and (known.key_types, known.rsa_minimum_bits) == _fields(wanted)):
        return lambda: None
    started = comparison.instance.key_rules
    then = key_rules.stricter(started, KeyPolicyRow(*_fields(wanted), None, ""))
    # What others changed in the database tells nothing of what was accepted.
    now = then if known is not None and not known.holds else key_rules.stricter(started, known)
    least = min(now.rsa_minimum_bits, then.rsa_minimum_bits)
    both = comparison.key_rules = replace(started, types=now.types | then.types, rsa_minimum_bits=least)
    if both == then:
        if known is not None or _fields(wanted) != ((), None):
            _accept(comparison, wanted)
        return lambda: None
    if both != now:
        _accept(comparison, WantedKeyPolicy(tuple(sorted(both.types)), both.rsa_minimum_bits))
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
    """Add to the plan that nobody registers the keys that the file calls revoked; people alone lift that."""
    known = {one.fingerprint for one in comparison.state.revoked_keys}
    for wanted in comparison.wanted.revoked_keys:
        if wanted.fingerprint not in known:
            comparison.do(f"revoke key {wanted.fingerprint} everywhere", _revoking(wanted))


def is_frozen(key: UserKey | Credential, marks: Iterable[datetime | None]) -> bool:
    """Whether a key is frozen by itself or by one of these marks of servers."""
    set_at = [at for at in (key.frozen_at, *marks) if at is not None]
    return any(terms.is_frozen(at, key.confirmed_at, key.created_at) for at in set_at)


def compare_frozen_keys(comparison: Comparison) -> None:
    """Add to the plan that the keys which the file calls frozen open nothing until somebody confirms them.

    A key that the file does not call so stays frozen where it is.
    """
    fingerprints, places = [], []
    marks = [server.frozen_at for server in comparison.state.servers.values()]
    for user in comparison.wanted.users:
        known = comparison.state.users.get(user.name)
        known_keys = comparison.state.user_keys.get(known.id, ()) if known else ()
        frozen = {key.fingerprint for key in known_keys if is_frozen(key, marks)}
        declared = (key.public_key for key in user.keys if key.frozen)
        wanted = [validation.parsed_key(comparison.instance, public_key).fingerprint for public_key in declared]
        fingerprints += [fingerprint for fingerprint in wanted if fingerprint not in frozen]
    for server in comparison.wanted.servers:
        host = comparison.matched.get(server.name)
        known_credentials = comparison.state.credentials.get(host.id, ()) if host else ()
        labels = {one.label for one in known_credentials if host and is_frozen(one, [host.frozen_at])}
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
