"""Users by their names: list, show, create or change to what is wanted; must leave each rule to users.py."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from keyrack.core import cursors
from keyrack.core.instance import Instance
from keyrack.core.lookups import ONESELF, own_user, user_named
from keyrack.core.people import users
from keyrack.core.people.rights import refuse_exceeding
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid, missing
from keyrack.model import PERSON, Actor, Page, Role, User, Window
from keyrack.store.people import users as user_rows


def find(
    instance: Instance, actor: Actor, *, search: str = "", offset: int = 0, limit: int = 50, cursor: str | None = None
) -> Page[User]:
    """A page of the workspace's users, oldest first.

    search: part of the name; cursor: of the page before, "" for the first one; takes the place of offset. Raises
    Refusal FORBIDDEN, or INVALID for a malformed cursor.
    """
    with Attempt(instance, actor, "people:read", "list users", target_kind="user") as attempt:
        window = Window(limit, offset, cursors.place(cursor, int))

        def question(connection: Connection) -> Page[User]:
            page = user_rows.page_of_users(connection, actor.workspace_id, window, search=search)
            return page.showing(user_rows.user_record(connection, row) for row in page.items)

        return attempt.read(question)


def get(instance: Instance, actor: Actor, name: str) -> User:
    """A user by name. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "people:read", "see a user", target_kind="user") as attempt:
        return attempt.read(lambda connection: user_named(connection, actor, name))


def put(
    instance: Instance,
    actor: Actor,
    name: str,
    *,
    make: bool,
    role: Role | None = None,
    kind: str | None = None,
    policies: Sequence[str] | None = None,
    disabled: bool | None = None,
) -> User:
    """Change a user to what is wanted, all or nothing; None leaves a field as it is, or gives a new user the default.

    make: create the user if there is none, by default as member without policies. Raises Refusal MISSING, INVALID for
    the last owner, or FORBIDDEN where the user's rights, before or after, exceed the actor's.
    """
    aim = "set a user" if make else "change a user"
    with Attempt(instance, actor, "people:write", aim, target_kind="user") as attempt:

        def run(work: Work) -> User:
            work.no_event("each part leaves an event")
            joined = within(work)
            user = user_rows.user_by_name(work.connection, actor.workspace_id, name)
            if user is None:
                if not make:
                    raise missing("user")
                if name == ONESELF:
                    raise invalid("name", "Nobody is called me: in paths it stands for whoever asks.")
                user = users.create_user(joined, actor, name=name, role=role or Role.MEMBER, policies=policies or ())
            else:
                wanted = role or user.role, tuple(user.policies if policies is None else policies)
                if wanted != (user.role, user.policies):
                    users.change_rights(joined, actor, user.id, role=wanted[0], policies=wanted[1])
            if kind is not None and kind != user.kind:
                _set_kind(work, user, kind)
            if disabled is not None and disabled != (user.disabled_at is not None):
                users.change(joined, actor, user.id, enabled=not disabled)
            return own_user(work, user.id)

        return attempt.write(run)


def delete(instance: Instance, actor: Actor, name: str) -> User:
    """Delete a user by name, and answer the user as they were. Raises Refusal as users.delete_user does."""
    with Attempt(instance, actor, "people:write", "delete a user", target_kind="user") as attempt:
        user = attempt.read(lambda connection: user_named(connection, actor, name))
        return users.delete_user(instance, actor, user.id)


def _set_kind(work: Work, user: User, kind: str) -> None:
    refuse_exceeding(work, user)
    user_rows.change_user(work.connection, user.id, {"kind": None if kind == PERSON else kind})
    work.record(f"Noted that {user.name} is a {kind}", target_id=user.id)
