"""Gives keys another end under their id, as long as the old one has not come; must add no key."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core import lookups, validation
from keyrack.core.instance import Instance
from keyrack.core.keys import user_keys
from keyrack.core.lookups import own_credential
from keyrack.core.people.rights import refuse_exceeding
from keyrack.core.work import Attempt, Work
from keyrack.errors import missing
from keyrack.model import Actor, Credential, UserKey
from keyrack.store.keys import endings, grants
from keyrack.store.people import users


def may_renew_credential(instance: Instance, actor: Actor, credential_id: int) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not renew this key, as credential() does."""
    with _of_credential(instance, actor, credential_id) as attempt:
        attempt.read(lambda connection: lookups.credential(connection, actor, credential_id, instance.now()))


def may_renew_key(instance: Instance, actor: Actor, key_id: int) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not renew this key of a user, as key() does."""
    with _of_key(instance, actor, key_id) as attempt:
        attempt.read(lambda connection: _held(connection, attempt, key_id, instance.now()))


def credential(
    instance: Instance, actor: Actor, credential_id: int, *, expires_at: object = None, duration: object = None
) -> Credential:
    """Give a credential another end.

    expires_at or duration: as validation.other_end takes them, a span from now on. Raises Refusal INVALID, or MISSING
    for one that is not there or has ended.
    """
    with _of_credential(instance, actor, credential_id) as attempt:

        def change(work: Work) -> Credential:
            held, server = own_credential(work, credential_id)
            end = validation.other_end(work.now, expires_at, duration)
            revision = work.bump_revision(server.id)
            endings.renew_credential(work.connection, held.id, end, revision, at=work.now)
            work.record(
                f"Renewed SSH key {held.label} ({held.fingerprint}) of {held.username} on "
                f"{server.name}{_words(held.expires_at, end)}",
                target_id=held.id,
                server_id=server.id,
                details={"label": held.label, "fingerprint": held.fingerprint},
            )
            renewed = endings.credential(work.connection, held.id, work.now)
            assert renewed is not None
            return renewed

        return attempt.write(change)


def key(
    instance: Instance, actor: Actor, key_id: int, *, expires_at: object = None, duration: object = None
) -> UserKey:
    """Give a key of the actor's own another end, or, with people:write, a key of another user.

    expires_at or duration: as credential() takes them. Raises Refusal INVALID, FORBIDDEN, or MISSING for one that is
    not there or has ended.
    """
    with _of_key(instance, actor, key_id) as attempt:

        def change(work: Work) -> UserKey:
            held = _held(work.connection, attempt, key_id, work.now)
            end = validation.other_end(work.now, expires_at, duration)
            owner = users.user(work.connection, held.user_id)
            assert owner is not None
            if owner.id != actor.user_id:
                refuse_exceeding(work, owner, has_keys=True)
            endings.renew_user_key(work.connection, held.id, end, at=work.now)
            work.bump_revisions(grants.servers_of_user(work.connection, owner.id))
            work.record(
                f"Renewed SSH key {held.title or 'without a title'} ({held.fingerprint}) of {owner.name}"
                f"{_words(held.expires_at, end)}",
                target_id=held.id,
                details={"title": held.title, "fingerprint": held.fingerprint},
            )
            renewed = endings.user_key(work.connection, held.id, work.now)
            assert renewed is not None
            return renewed

        return attempt.write(change)


def _words(before: datetime | None, end: datetime) -> str:
    was = "had no end" if before is None else f"ended {before:%Y-%m-%d %H:%M:%S} UTC"
    return f" until {end:%Y-%m-%d %H:%M:%S} UTC (it {was})"


def _of_credential(instance: Instance, actor: Actor, credential_id: int) -> Attempt:
    aim = "renew an SSH key"
    return Attempt(instance, actor, "credentials:write", aim, target_kind="credential", target_id=credential_id)


def _of_key(instance: Instance, actor: Actor, key_id: int) -> Attempt:
    key = instance.database.read(lambda connection: endings.user_key(connection, key_id, instance.now()))
    # With the action for own keys, a key of another user is MISSING for actors who may not deal with users.
    own = key is None or key.user_id == actor.user_id or policy.may(actor, "people:write") is not None
    action = user_keys.ADD if own else "people:write"
    return Attempt(instance, actor, action, "renew an SSH key", target_kind="user key", target_id=key_id)


def _held(connection: Connection, attempt: Attempt, key_id: int, now: datetime) -> UserKey:
    """The key that is to be renewed. Raises Refusal MISSING."""
    actor = attempt.actor
    held = endings.user_key(connection, key_id, now)
    own = attempt.action == user_keys.ADD
    if held is None or held.workspace_id != actor.workspace_id or (own and held.user_id != actor.user_id):
        raise missing("SSH key")
    return held
