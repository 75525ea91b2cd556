"""Sets a key of a user up so that repeating the call changes nothing; must leave registering it to user_keys."""

from __future__ import annotations

from datetime import datetime

from keyrack.core import validation
from keyrack.core.instance import Instance
from keyrack.core.keys import user_keys
from keyrack.core.lookups import is_oneself, user_named
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, User, UserKey
from keyrack.store.keys import key_owners
from keyrack.store.keys.user_keys import user_key_holds


def put(
    instance: Instance,
    actor: Actor,
    *,
    person: str | None = None,
    title: object,
    public_key: object,
    expires_at: object = None,
) -> UserKey:
    """The key as this user's own, registered now unless it is there.

    person: by name, None for the actor; expires_at: a time or None, no span, which would be another end each time; the
    rest: as user_keys.add takes it. Raises Refusal TAKEN where the user has it with another title or end, and as
    user_keys.add does.
    """
    name_of_user = actor.name if person is None else person
    own = is_oneself(actor, name_of_user) or person is None
    action = user_keys.ADD if own else "people:write"
    with Attempt(instance, actor, action, "set up an SSH key", target_kind="user key") as attempt:
        user = None if own else attempt.read(lambda connection: user_named(connection, actor, name_of_user))
        owner = user_keys.person(actor) if user is None else user.id
        checked_title = (
            None if title is None else validation.text(title, field="title", maximum=validation.LONGEST_TITLE)
        )
        key = validation.parsed_key(instance, public_key)
        if validation.is_span(expires_at):
            raise invalid("expires_at", "A span would be another end each time; name a time.")

        def change(work: Work) -> UserKey:
            end = validation.end(work.now, expires_at)
            held = _standing(work, owner, key.fingerprint)
            if held is not None and (held.title, held.expires_at) == (checked_title, end):
                work.no_event("it is there already")
                return held
            if held is not None:
                raise Refusal(Kind.TAKEN, "terms-differ", _differs(held.title, held.expires_at), field="public_key")
            work.no_event("registering it leaves one")
            return user_keys.add(
                within(work),
                actor,
                title=title,
                public_key=public_key,
                user_id=None if own else owner,
                expires_at=expires_at,
            )

        return attempt.write(change)


def delete(instance: Instance, actor: Actor, person: str, key_id: int) -> UserKey:
    """Delete a key of the user with this name, and answer it as it was. Raises Refusal as user_keys.delete does."""
    if is_oneself(actor, person):
        return user_keys.delete(instance, actor, key_id)
    return user_keys.delete(instance, actor, key_id, user_id=_other(instance, actor, person, key_id).id)


def may_delete(instance: Instance, actor: Actor, person: str, key_id: int) -> None:
    """Raises Refusal where the actor may not delete this key of the user with this name, as delete() does."""
    owner = None if is_oneself(actor, person) else _other(instance, actor, person, key_id).id
    user_keys.may_delete(instance, actor, key_id, user_id=owner)


def _other(instance: Instance, actor: Actor, person: str, key_id: int) -> User:
    aim = "delete an SSH key of another user"
    with Attempt(instance, actor, "people:write", aim, target_kind="user key", target_id=key_id) as attempt:
        return attempt.read(lambda connection: user_named(connection, actor, person))


def _standing(work: Work, owner: int, fingerprint: str) -> UserKey | None:
    """The owner's row with this key, None where there is none or it is not as Keyrack wrote it."""
    known = key_owners.owner_of(work.connection, fingerprint)
    held = None if known is None else known[1]
    if held is None or held.user_id != owner:
        return None
    return held if user_key_holds(work.connection, held.workspace_id, held.id) else None


def _differs(title: str | None, end: datetime | None) -> str:
    named = "without a title" if title is None else f"under the title {title!r}"
    until = "without an end" if end is None else f"until {end:%Y-%m-%d %H:%M:%S} UTC"
    return f"The user has this key {named} and {until}; renew it for another end, or delete it first."
