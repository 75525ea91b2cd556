"""When keys were last used, for people; must change nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection

from keyrack import policy
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

    user: only this one's, by name; cursor: of the page before, "" for the first one; takes the place of offset. Raises
    Refusal MISSING or FORBIDDEN, or INVALID for a malformed cursor.
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


def newest(instance: Instance, actor: Actor, keys: Sequence[UserKey]) -> dict[str, datetime]:
    """When keys of users were last used, on the workspace's servers or with Git, by fingerprint; none that never was.

    One's own for everybody who sees them, those of others for who sees people. Raises Refusal FORBIDDEN.
    """
    with Attempt(instance, actor, _action(actor, keys), "see uses of SSH keys", target_kind="user key") as attempt:
        known = [key.fingerprint for key in keys if key.fingerprint]
        found = attempt.read(lambda connection: uses.of_keys(connection, actor.workspace_id, known))
    return {fingerprint: used[0].at for fingerprint, used in found.items()}


def newest_if_told(instance: Instance, actor: Actor, keys: Sequence[UserKey]) -> dict[str, datetime]:
    """The same beside keys that are public: nothing for who may see the keys and not their uses."""
    return {} if policy.may(actor, _action(actor, keys)) is not None else newest(instance, actor, keys)


def _action(actor: Actor, keys: Sequence[UserKey]) -> str:
    own = all(key.user_id == actor.user_id for key in keys)
    return "codeartsrepo::getUserSetting" if own else "people:read"
