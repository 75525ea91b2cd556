"""Groups as people name them: list, show, make, empty, delete; must leave what a change means for hosts to users.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from keyrack.core import cursors
from keyrack.core.instance import Instance
from keyrack.core.lookups import group_named, user_named
from keyrack.core.people import users
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import missing
from keyrack.model import Actor, Page, User, Window
from keyrack.store.people import groups

_Change = Callable[[Instance, Connection], None]


@dataclass(frozen=True, slots=True)
class Group:
    """A group and the names of the users in it, in order."""

    id: int
    name: str
    created_at: datetime
    members: tuple[str, ...]


def find(
    instance: Instance, actor: Actor, *, search: str = "", offset: int = 0, limit: int = 50, cursor: str | None = None
) -> Page[Group]:
    """A page of the workspace's groups by name; search: part of it; cursor: instead of offset, of the page before, ""
    for the first one. Raises Refusal FORBIDDEN, or INVALID for a cursor that is none.
    """
    with Attempt(instance, actor, "people:read", "list groups", target_kind="group") as attempt:
        window = Window(limit, offset, cursors.place(cursor, str))

        def question(connection: Connection) -> Page[Group]:
            page = groups.page(connection, actor.workspace_id, window, search=search)
            return page.showing(_record(connection, one) for one in page.items)

        return attempt.read(question)


def get(instance: Instance, actor: Actor, name: str) -> Group:
    """A group by name. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "people:read", "see a group", target_kind="group") as attempt:
        return attempt.read(lambda connection: _get(connection, actor, name))


def member(instance: Instance, actor: Actor, name: str, user: str) -> User:
    """A user who is in a group. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "people:read", "see a user in a group", target_kind="group") as attempt:

        def question(connection: Connection) -> User:
            held = groups.group_member_ids(connection, _get(connection, actor, name).id)
            person = user_named(connection, actor, user)
            if person.id not in held:
                raise missing("member")
            return person

        return attempt.read(question)


def put(instance: Instance, actor: Actor, name: str, members: Iterable[str] | None) -> Group:
    """Make a group exist, with exactly these users; None leaves those who are in it.

    Raises Refusal INVALID for a user whom there is not, FORBIDDEN, or LIMIT.
    """

    def change(within_: Instance, connection: Connection) -> None:
        ids = [user_named(connection, actor, one, field="members").id for one in dict.fromkeys(members or ())]
        users.ensure_group(within_, actor, name=name, user_ids=ids, exactly=members is not None)

    return _changed(instance, actor, name, "set a group", change, there=False)


def add_member(instance: Instance, actor: Actor, name: str, user: str) -> Group:
    """Put a user into a group; nothing changes for one who is in it. Raises Refusal MISSING or FORBIDDEN."""

    def change(within_: Instance, connection: Connection) -> None:
        users.ensure_group(within_, actor, name=name, user_ids=[user_named(connection, actor, user).id], exactly=False)

    return _changed(instance, actor, name, "put a user into a group", change)


def may_add_member(instance: Instance, actor: Actor, name: str, user: str) -> None:
    """Nothing when the actor may put this user into the group; raises Refusal MISSING or FORBIDDEN."""
    with _attempt(instance, actor, "put a user into a group") as attempt:
        attempt.read(lambda connection: (_get(connection, actor, name), user_named(connection, actor, user)))


def remove_member(instance: Instance, actor: Actor, name: str, user: str) -> Group:
    """Take a user out of a group: keys that nothing else lets in leave the hosts. Raises Refusal MISSING."""

    def change(within_: Instance, connection: Connection) -> None:
        group = _get(connection, actor, name)
        gone = user_named(connection, actor, user).id
        held = groups.group_member_ids(connection, group.id)
        if gone not in held:
            raise missing("member")
        users.ensure_group(within_, actor, name=name, user_ids=held - {gone})

    return _changed(instance, actor, name, "take a user out of a group", change)


def delete(instance: Instance, actor: Actor, name: str) -> Group:
    """Delete a group with its grants, and answer it as it was; keys that nothing else lets in leave the hosts.

    Raises Refusal MISSING or FORBIDDEN.
    """
    with _attempt(instance, actor, "delete a group") as attempt:

        def run(work: Work) -> Group:
            group = _get(work.connection, actor, name)
            # Emptied first, which tells the hosts; its grants then let nobody in.
            users.ensure_group(within(work), actor, name=name, user_ids=())
            groups.remove(work.connection, group.id)
            work.record(f"Deleted group {group.name}", target_id=group.id, level="warning")
            return group

        return attempt.write(run)


def _changed(
    instance: Instance,
    actor: Actor,
    name: str,
    aim: str,
    change: _Change,
    *,
    there: bool = True,
) -> Group:
    with _attempt(instance, actor, aim) as attempt:

        def run(work: Work) -> Group:
            if there:
                _get(work.connection, actor, name)
            work.no_event("the change within leaves it")
            change(within(work), work.connection)
            return _get(work.connection, actor, name)

        return attempt.write(run)


def _attempt(instance: Instance, actor: Actor, aim: str) -> Attempt:
    return Attempt(instance, actor, "people:write", aim, target_kind="group")


def _get(connection: Connection, actor: Actor, name: str) -> Group:
    return _record(connection, group_named(connection, actor, name))


def _record(connection: Connection, row: groups.GroupRow) -> Group:
    return Group(row.id, row.name, row.created_at, groups.member_names(connection, row.id))
