"""When keys were last used, as people read it; must change nothing."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from keyrack.core import cursors, lookups
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.model import Actor, Page, UserKey, Window
from keyrack.store.keys import user_keys as user_key_rows
from keyrack.store.keys import uses
from keyrack.store.keys.uses import Use
from keyrack.store.people import users

Uses = dict[str, tuple[Use, ...]]


def on_server(instance: Instance, actor: Actor, server_id: int, fingerprints: Iterable[str]) -> Uses:
    """The last uses of keys on one server, by fingerprint. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(
        instance, actor, "credentials:read", "see uses of keys", target_kind="server", server_id=server_id
    ) as attempt:

        def question(connection: Connection) -> Uses:
            lookups.require_server(connection, actor, server_id)
            return uses.of_keys(connection, actor.workspace_id, fingerprints, server_id=server_id)

        return attempt.read(question)


def of_user(instance: Instance, actor: Actor, user: str) -> Uses:
    """The last uses of a user's keys, by fingerprint; a user sees their own. Raises Refusal MISSING or FORBIDDEN."""
    action = "iam:self" if lookups.is_oneself(actor, user) else "people:read"
    with Attempt(instance, actor, action, "see uses of keys", target_kind="user") as attempt:

        def question(connection: Connection) -> Uses:
            owner = lookups.user_named(connection, actor, user)
            held = user_key_rows.keys_of_user(connection, owner.id)
            return uses.of_keys(connection, actor.workspace_id, (key.fingerprint for key in held if key.fingerprint))

        return attempt.read(question)


def user_keys(
    instance: Instance,
    actor: Actor,
    *,
    user: str | None = None,
    offset: int = 0,
    limit: int = 50,
    cursor: str | None = None,
) -> tuple[Page[UserKey], dict[int, str], Uses]:
    """A page of the keys of the workspace's users, newest first, with the users' names by id and the last uses.

    user: of this one alone, by name; cursor: instead of offset, of the page before, "" for the first one. Raises
    Refusal MISSING or FORBIDDEN, or INVALID for a cursor that is none.
    """
    with Attempt(instance, actor, "people:read", "list SSH keys of users", target_kind="user key") as attempt:
        window = Window(limit, offset, cursors.place(cursor, int))

        def question(connection: Connection) -> tuple[Page[UserKey], dict[int, str], Uses]:
            owner = None if user is None else lookups.user_named(connection, actor, user).id
            page = user_key_rows.user_keys_of_workspace(connection, actor.workspace_id, window, user_id=owner)
            names = users.user_names(connection, (key.user_id for key in page.items))
            known = [key.fingerprint for key in page.items if key.fingerprint]
            return page, names, uses.of_keys(connection, actor.workspace_id, known)

        return attempt.read(question)
