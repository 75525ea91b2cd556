"""What a workspace file says of keys that are accepted, revoked or frozen, of offline policies, host keys and deploy
keys, compared with the workspace; must change nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from keyrack.core import validation
from keyrack.core.git import deploy_keys, repositories
from keyrack.core.hosts import host_keys, modes
from keyrack.core.keys import freezes, key_policy, key_rules, revocation
from keyrack.core.words import count
from keyrack.core.workspace.workspace_changes import Comparison, Doing
from keyrack.core.workspace.workspace_text import (
    WantedDeployKey,
    WantedKeyPolicy,
    WantedRepository,
    WantedRevocation,
    WantedServer,
)
from keyrack.model import Credential, UserKey
from keyrack.store.git.deploy_keys import DeployKey
from keyrack.store.keys import terms
from keyrack.store.keys.key_policy import KeyPolicyRow


def compare_key_policy(run: Comparison) -> Callable[[], None]:
    """Add to the plan which keys are accepted; answers what adds the rest of it, behind all keys that the file names.

    What is accepted beside what is now comes first, so that such keys can be entered; what is not accepted any more
    comes last, as those that were registered before stay in the workspace that a file was exported from.
    """
    wanted, held = run.wanted.key_policy, run.state.key_policy
    if wanted is None or (held and held.holds and (held.key_types, held.rsa_minimum_bits) == _own(wanted)):
        return lambda: None
    started = run.instance.key_rules
    then = key_rules.stricter(started, KeyPolicyRow(*_own(wanted), None, ""))
    # What others changed in the database tells nothing of what was accepted.
    now = then if held is not None and not held.holds else key_rules.stricter(started, held)
    least = min(now.rsa_minimum_bits, then.rsa_minimum_bits)
    both = run.key_rules = replace(started, types=now.types | then.types, rsa_minimum_bits=least)
    if both == then:
        if held is not None or _own(wanted) != ((), None):
            _accept(run, wanted)
        return lambda: None
    if both != now:
        _accept(run, WantedKeyPolicy(tuple(sorted(both.types)), both.rsa_minimum_bits))
    return lambda: _accept(run, wanted)


def _own(wanted: WantedKeyPolicy) -> tuple[tuple[str, ...], int | None]:
    return wanted.types, wanted.rsa_minimum_bits


def _accept(run: Comparison, wanted: WantedKeyPolicy) -> None:
    run.do(
        f"accept keys {wanted.words}",
        lambda doing: key_policy.put(
            doing.instance, doing.actor, types=wanted.types or None, rsa_minimum_bits=wanted.rsa_minimum_bits
        ),
    )


def compare_revoked_keys(run: Comparison) -> None:
    """Add to the plan that nobody registers the keys that the file calls revoked; people alone lift that."""
    noted = {one.fingerprint for one in run.state.revoked_keys}
    for wanted in run.wanted.revoked_keys:
        if wanted.fingerprint not in noted:
            run.do(f"revoke key {wanted.fingerprint} everywhere", _noted(wanted))


def compare_host(run: Comparison, wanted: WantedServer) -> None:
    """Add to the plan what brings an offline policy to what the file says, and host keys where none is known."""
    known = run.matched.get(wanted.name)
    before = (known.offline_after_seconds, known.offline_then) if known else (0, "keep")
    after = (
        before[0] if wanted.offline_after_seconds is None else wanted.offline_after_seconds,
        before[1] if wanted.offline_then is None else wanted.offline_then,
    )
    if before != after:
        run.do(
            f"have server {wanted.name} {after[1]} after {after[0]} seconds without the service",
            lambda doing: modes.set_offline_policy(
                doing.instance,
                doing.actor,
                after_seconds=after[0],
                then=after[1],
                server_id=doing.servers[wanted.name],
            ),
        )
    if wanted.host_keys and not (known and run.state.host_keys.get(known.id)):
        run.do(
            f"name {count(len(wanted.host_keys), 'host key')} of server {wanted.name}",
            lambda doing: host_keys.know(doing.instance, doing.actor, doing.servers[wanted.name], wanted.host_keys),
        )


def compare_deploy_keys(run: Comparison, wanted: WantedRepository) -> None:
    """Add to the plan what brings a repository's deploy keys to what the file says."""
    if not wanted.has_deploy_keys:
        return
    state = run.state.repositories.get(wanted.path)
    keys = {} if state is None else {key.fingerprint: key for key in run.state.deploy_keys.get(state.repository.id, ())}
    for key in wanted.deploy_keys:
        fingerprint = validation.key_line(run.instance, key.public_key).fingerprint
        was = keys.pop(fingerprint, None)
        if was is not None and (was.title, was.application, was.can_push) == (key.title, key.application, key.can_push):
            continue
        run.check_key(key.public_key)
        if was is not None:
            run.do(f"delete deploy key {was.title} of {wanted.path}, which is to be another", _deleted(was))
        run.do(f"add deploy key {key.title} ({fingerprint}) to {wanted.path}", _added(wanted.path, key))
    for was in keys.values():
        run.remove(f"delete deploy key {was.title} of {wanted.path}", _deleted(was))


def is_frozen(key: UserKey | Credential, marks: Iterable[datetime | None]) -> bool:
    """Whether a key is frozen by itself or by one of these marks of servers."""
    set_at = [at for at in (key.frozen_at, *marks) if at is not None]
    return any(terms.is_frozen(at, key.confirmed_at, key.created_at) for at in set_at)


def compare_frozen_keys(run: Comparison) -> None:
    """Add to the plan that the keys which the file calls frozen open nothing until somebody confirms them.

    A key that the file does not call so stays frozen where it is.
    """
    prints, places = [], []
    marks = [server.frozen_at for server in run.state.servers.values()]
    for user in run.wanted.users:
        known = run.state.users.get(user.name)
        mine = run.state.user_keys.get(known.id, ()) if known else ()
        frozen = {key.fingerprint for key in mine if is_frozen(key, marks)}
        wanted = [validation.key_line(run.instance, line).fingerprint for line in user.frozen_keys]
        prints += [fingerprint for fingerprint in wanted if fingerprint not in frozen]
    for server in run.wanted.servers:
        there = run.matched.get(server.name)
        held = run.state.credentials.get(there.id, ()) if there else ()
        labels = {one.label for one in held if there and is_frozen(one, [there.frozen_at])}
        places += [(server.name, one.label) for one in server.credentials if one.frozen and one.label not in labels]
    if prints or places:
        run.do(
            f"freeze {count(len(prints), 'SSH key')} of users and {len(places)} on servers until they are confirmed",
            lambda doing: freezes.freeze_some(
                doing.instance,
                doing.actor,
                fingerprints=prints,
                held=[(doing.servers[name], label) for name, label in places],
            ),
        )


def _noted(wanted: WantedRevocation) -> Callable[[Doing], object]:
    return lambda doing: revocation.revoke_everywhere(
        doing.instance, doing.actor, wanted.fingerprint, reason=wanted.reason, unknown=True
    )


def _added(path: str, wanted: WantedDeployKey) -> Callable[[Doing], object]:
    return lambda doing: deploy_keys.add(
        doing.instance,
        doing.actor,
        repositories.at(doing.instance, doing.actor, path).id,
        title=wanted.title,
        public_key=wanted.public_key,
        application=wanted.application,
        can_push=wanted.can_push,
    )


def _deleted(was: DeployKey) -> Callable[[Doing], object]:
    return lambda doing: deploy_keys.delete(doing.instance, doing.actor, was.repository_id, was.id)
