"""Compares a workspace file's users and groups with the workspace; must change nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from keyrack import policy
from keyrack.core import validation
from keyrack.core.keys import key_sources, renewals, user_keys
from keyrack.core.people import access_keys, groups, named_people, tokens, users
from keyrack.core.workspace.changes import Comparison, Execution, refuse_unknown, shortened
from keyrack.core.workspace.faults import wrong
from keyrack.core.workspace.wanted import WantedToken, WantedUser, WantedUserKey
from keyrack.model import PERSON, Role, User, UserKey, has_ended
from keyrack.store.workspace_state import TokenRow


def compare_user(comparison: Comparison, wanted: WantedUser) -> None:
    """Plan that a user is created, or gets the password of the file."""
    known = comparison.state.users.get(wanted.name)
    if known is None:

        def create(execution: Execution) -> None:
            execution.users[wanted.name] = users.create_user(
                execution.instance,
                execution.actor,
                name=wanted.name,
                role=wanted.role,
                policies=wanted.policies,
                password=execution.hashed.get(wanted.name, wanted.password),
                uid=wanted.uid,
            )

        comparison.do(f"create user {wanted.name} as {wanted.role.value}", create)
        return
    if wanted.uid not in (None, known.uid):
        raise wrong(wanted.place, f"the user has the id {known.uid}, which cannot be changed")
    stored_hash = comparison.state.passwords.get(known.id)
    if wanted.password is None or (
        stored_hash is not None and (wanted.name, stored_hash) not in comparison.other_passwords
    ):
        return
    if stored_hash is not None and not comparison.reset_secrets:
        comparison.plan.noted.append(f"the password of {wanted.name} is not the file's; --reset-secrets sets it")
        return
    words = "set the password of" if stored_hash is None else "reset the password of"
    comparison.do(
        f"{words} {wanted.name}",
        lambda execution: users.change_password(
            execution.instance, execution.actor, known.id, execution.hashed.get(wanted.name, wanted.password or "")
        ),
    )


def _refuse_misspelt(comparison: Comparison, wanted: WantedUser) -> None:
    """Refuse policies and scopes that fit no action and are not stored already, on a dry run too."""
    known = comparison.state.users.get(wanted.name)
    policy.fitting(wanted.policies, field="policies", held=known.policies if known else ())
    for token in wanted.tokens:
        row = comparison.state.known_tokens.get(comparison.instance.key.hash_token(token.secret))
        policy.fitting(token.scopes, field="scopes", held=row.scopes if row else ())


def compare_rights(comparison: Comparison) -> None:
    """Plan what brings roles and policies to what the file says; owners first, so that the last one can be changed."""
    for wanted in sorted(comparison.wanted.users, key=lambda one: one.role is not Role.OWNER):
        known = comparison.state.users.get(wanted.name)
        if known is None or (known.role, set(known.policies)) == (wanted.role, set(wanted.policies)):
            continue
        changes = [f"{known.role.value} to {wanted.role.value}"] if known.role is not wanted.role else []
        changes += [f"policy {name} given" for name in wanted.policies if name not in known.policies]
        changes += [f"policy {name} taken" for name in known.policies if name not in wanted.policies]
        comparison.do(
            f"change the rights of {wanted.name}: {', '.join(changes)}",
            lambda execution, one=wanted, user=known: users.change_rights(  # type: ignore[misc]
                execution.instance, execution.actor, user.id, role=one.role, policies=one.policies
            ),
        )


def compare_access_keys_and_tokens(comparison: Comparison, wanted: WantedUser) -> None:
    """Plan what brings a user's access keys and tokens to what the file says."""
    known = comparison.state.users.get(wanted.name)
    declared = {key_id for key_id, _ in wanted.access_keys}
    for key_id, secret in wanted.access_keys:
        _access_key(comparison, wanted, known, key_id, secret)
    for key in comparison.keys_of.get(known.id, ()) if known else ():
        if key.id not in declared and key.details.get(access_keys.DECLARED):
            comparison.remove(
                f"delete access key {key.id} of {wanted.name}",
                lambda execution, number=key.id: access_keys.delete(execution.instance, execution.actor, number),  # type: ignore[misc]
            )
    in_force = [
        row for row in (comparison.tokens_of.get(known.id, ()) if known else ()) if not _has_ended(comparison, row)
    ]
    declared_hashes = {token.name: comparison.instance.key.hash_token(token.secret) for token in wanted.tokens}
    for token in wanted.tokens:
        alike = [row for row in in_force if row.name == token.name and row.secret_hash not in declared_hashes.values()]
        _token(comparison, wanted, known, token, alike)
    for row in in_force:
        if row.secret_hash in declared_hashes.values() or row.name in declared_hashes:
            continue
        if wanted.has_tokens:
            comparison.remove(
                f"revoke token {row.name} of {wanted.name}, which the file does not name", _revoking_token(row)
            )
        else:
            # Nobody knows who made it, and programs may need it.
            why = f"the file says nothing of {wanted.name}'s tokens (tokens = [] revokes)"
            comparison.plan.noted.append(f"token {row.name} of {wanted.name}; {why}")


def _access_key(comparison: Comparison, wanted: WantedUser, known: User | None, key_id: str, secret: str) -> None:
    row = comparison.state.known_access_keys.get(key_id)
    if row is not None and (known is None or row.user_id != known.id):
        raise wrong(wanted.place, f"the access key id {key_id} is another user's")
    if row is not None and access_keys.secret_is(comparison.instance, row, secret):
        return
    comparison.do(
        f"create access key {key_id} of {wanted.name}"
        if row is None
        else f"give access key {key_id} of {wanted.name} another secret",
        lambda execution: access_keys.ensure(
            execution.instance, execution.actor, execution.users[wanted.name], key_id=key_id, secret=secret
        ),
    )


def _token(
    comparison: Comparison, wanted: WantedUser, known: User | None, token: WantedToken, alike: list[TokenRow]
) -> None:
    row = comparison.state.known_tokens.get(comparison.instance.key.hash_token(token.secret))
    if row is not None and (known is None or row.user_id != known.id):
        raise wrong(wanted.place, f"the token {token.name!r} is somebody else's already; choose another one")
    ended = has_ended(token.expires_at, comparison.at)
    if row is not None and _has_ended(comparison, row):
        if ended:
            return  # as the file says
        end = row.revoked_at or row.expires_at
        raise wrong(
            wanted.place,
            f"the token {token.name!r} ended at {end:%Y-%m-%dT%H:%M:%SZ}, and an ended token opens nothing again; "
            "choose another one",
        )
    if row is not None:
        if ended:
            comparison.do(
                f"revoke token {row.name} of {wanted.name}, whose end in the file is past", _revoking_token(row)
            )
        else:
            _change_token(comparison, wanted, token, row)
        for old in alike:
            comparison.remove(f"revoke another token {old.name} of {wanted.name}", _revoking_token(old))
        return
    if ended:
        return  # it has ended before it was created
    for old in alike:
        comparison.do(f"revoke token {old.name} of {wanted.name}, which another one replaces", _revoking_token(old))
    comparison.do(
        f"create token {token.name} of {wanted.name}",
        lambda execution: tokens.create(
            execution.instance,
            execution.actor,
            execution.users[wanted.name],
            name=token.name,
            scopes=token.scopes,
            secret=token.secret,
            expires_at=token.expires_at,
        ),
    )


def _change_token(comparison: Comparison, wanted: WantedUser, token: WantedToken, row: TokenRow) -> None:
    changes = []
    if row.name != token.name:
        changes.append(f"name it {token.name}")
    if set(row.scopes) != set(token.scopes):
        changes.append(f"scopes {', '.join(token.scopes) or 'none'} instead of {', '.join(row.scopes) or 'none'}")
    if row.expires_at != token.expires_at:
        changes.append(
            "no end" if token.expires_at is None else f"end {token.expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        )
    if changes:
        comparison.do(
            f"change token {row.name} of {wanted.name}: {'; '.join(changes)}",
            lambda execution: tokens.change(
                execution.instance,
                execution.actor,
                row.id,
                name=token.name,
                scopes=token.scopes,
                expires_at=token.expires_at,
            ),
        )


def _has_ended(comparison: Comparison, row: TokenRow) -> bool:
    return row.revoked_at is not None or has_ended(row.expires_at, comparison.at)


def _revoking_token(row: TokenRow) -> Callable[[Execution], object]:
    return lambda execution: tokens.revoke_id(execution.instance, execution.actor, row.id)


def compare_user_details(comparison: Comparison, wanted: WantedUser) -> None:
    """Plan what brings a user's kind, SSH keys, key sources and whether they are disabled to what the file says.

    Raises Refusal INVALID for policies and scopes that fit no action.
    """
    _refuse_misspelt(comparison, wanted)
    known = comparison.state.users.get(wanted.name)
    if wanted.kind is not None and wanted.kind != (known.kind if known else PERSON):
        comparison.do(f"note that {wanted.name} is a {wanted.kind}", _changing_user(wanted.name, kind=wanted.kind))
    if wanted.has_keys:
        _user_keys(comparison, wanted)
    if wanted.has_sources:
        _sources(comparison, wanted)
    is_disabled = bool(known and known.disabled_at is not None)
    if wanted.disabled is not None and wanted.disabled != is_disabled:
        verb = "shut out" if wanted.disabled else "let in again"
        comparison.do(f"{verb} {wanted.name}", _changing_user(wanted.name, disabled=wanted.disabled))


def _changing_user(
    name: str, *, kind: str | None = None, disabled: bool | None = None
) -> Callable[[Execution], object]:
    return lambda execution: named_people.put(
        execution.instance, execution.actor, name, make=False, kind=kind, disabled=disabled
    )


def _user_keys(comparison: Comparison, wanted: WantedUser) -> None:
    known = comparison.state.users.get(wanted.name)
    known_keys = {key.fingerprint: key for key in (comparison.state.user_keys.get(known.id, ()) if known else ())}
    for key in wanted.keys:
        end = key.expires_at
        fingerprint = validation.parsed_key(comparison.instance, key.public_key).fingerprint
        known_key = known_keys.pop(fingerprint, None)
        if known_key is None:
            comparison.check_key(key.public_key)
            comparison.do(f"add SSH key {fingerprint} of {wanted.name}", _adding_key(wanted.name, key))
        elif end is not None and end != known_key.expires_at:
            comparison.do(f"give SSH key {fingerprint} of {wanted.name} another end", _renewing_key(known_key, end))
    for known_key in known_keys.values():
        comparison.remove(
            f"delete SSH key {known_key.fingerprint} of {wanted.name}",
            lambda execution, one=known_key: user_keys.delete(  # type: ignore[misc]
                execution.instance, execution.actor, one.id, user_id=one.user_id
            ),
        )


def _adding_key(user: str, wanted: WantedUserKey) -> Callable[[Execution], object]:
    return lambda execution: user_keys.add(
        execution.instance,
        execution.actor,
        title=wanted.title,
        public_key=wanted.public_key,
        user_id=execution.users[user].id,
        expires_at=wanted.expires_at,
    )


def _renewing_key(known: UserKey, end: datetime) -> Callable[[Execution], object]:
    return lambda execution: renewals.key(execution.instance, execution.actor, known.id, expires_at=end)


def _sources(comparison: Comparison, wanted: WantedUser) -> None:
    known = comparison.state.users.get(wanted.name)
    known_sources = {one.kind: one for one in comparison.state.sources if known is not None and one.user_id == known.id}
    for source in wanted.sources:
        known_source = known_sources.pop(source.kind, None)
        if (
            known_source is None
            or known_source.account != source.account
            or (source.url is not None and known_source.url != source.url)
        ):
            comparison.do(
                f"take keys of {wanted.name} from {source.account} at {source.url or source.kind}",
                lambda execution, one=source: key_sources.put(  # type: ignore[misc]
                    execution.instance, execution.actor, wanted.name, one.kind, account=one.account, url=one.url
                ),
            )
    for kind in known_sources:
        comparison.remove(
            f"take keys of {wanted.name} from {known_sources[kind].account} no more",
            lambda execution, one=kind: key_sources.delete(  # type: ignore[misc]
                execution.instance, execution.actor, wanted.name, one
            ),
        )


def compare_groups(comparison: Comparison) -> None:
    """Plan what brings groups and their members to what the file says."""
    for group in comparison.wanted.groups:
        with comparison.faults.noted():
            refuse_unknown(group.place, "user", (name for name in group.members if name not in comparison.known_people))
        group_id = comparison.state.groups.get(group.name)
        members = {comparison.user_names[user_id] for user_id in comparison.state.members.get(group_id or 0, ())}
        added = [name for name in group.members if name not in members]
        if group_id is None or added:
            comparison.do(
                f"{'create' if group_id is None else 'change'} group {group.name}: add {shortened(added) or 'nobody'}",
                lambda execution, one=group: _set_members(execution, one.name, one.members),  # type: ignore[misc]
            )
        removed = sorted(members - set(group.members))
        if removed:
            comparison.remove(
                f"take {shortened(removed)} out of group {group.name}",
                lambda execution, one=group: _set_members(execution, one.name, one.members, exactly=True),  # type: ignore[misc]
            )


def _set_members(execution: Execution, name: str, members: Iterable[str], *, exactly: bool = False) -> None:
    user_ids = [execution.users[member].id for member in members]
    groups.ensure(execution.instance, execution.actor, name=name, user_ids=user_ids, exactly=exactly)
    if name not in execution.groups:
        execution.groups[name] = groups.id_of(execution.instance, execution.actor, name)
