"""Groups: list, show, make, change and delete them, and change the hosts of their grants; must change no user."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core import cursors, quotas, validation
from keyrack.core.instance import Instance
from keyrack.core.keys import propagation
from keyrack.core.lookups import group_named, own_user, user_named
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import missing
from keyrack.model import Actor, Grant, Page, User, Window
from keyrack.store.keys import grants, user_keys
from keyrack.store.people import groups, users

_Change = Callable[[Instance, Connection], None]


@dataclass(frozen=True, slots=True)
class Group:
    """A group, and the names of its users, sorted."""

    id: int
    name: str
    created_at: datetime
    members: tuple[str, ...]


def find(
    instance: Instance, actor: Actor, *, search: str = "", offset: int = 0, limit: int = 50, cursor: str | None = None
) -> Page[Group]:
    """A page of the workspace's groups by name.

    search: part of the name; cursor: of the page before, "" for the first one; takes the place of offset. Raises
    Refusal FORBIDDEN, or INVALID for a malformed cursor.
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


def ensure(instance: Instance, actor: Actor, *, name: object, user_ids: Iterable[int], exactly: bool = True) -> bool:
    """Make a group with these users, or change it to have them; False where it has them already.

    exactly: others leave the group; otherwise they stay. Changing a group that has grants changes who may log in, which
    takes grants:write too. Raises Refusal INVALID, MISSING, LIMIT or FORBIDDEN.
    """
    attempt = Attempt(instance, actor, "people:write", "set a group", target_kind="group")
    with attempt:
        title = validation.called(name)
        wanted_ids = frozenset(user_ids)

        def current(connection: Connection) -> tuple[int | None, frozenset[int]]:
            number = groups.group_id(connection, actor.workspace_id, title)
            return number, groups.group_member_ids(connection, number) if number else frozenset()

        number, members = attempt.read(current)
        if number is None:
            validation.name(name)
        if number is not None and members == (wanted_ids if exactly else wanted_ids | members):
            return False

        def change(work: Work) -> bool:
            group, before = current(work.connection)
            is_new = group is None
            if group is None:
                quotas.refuse_more(work, "group")
                group = groups.add_group(work.connection, actor.workspace_id, title, work.now)
            wanted = wanted_ids if exactly else wanted_ids | before
            if not is_new and wanted == before:
                work.no_event("another call was quicker")
                return False
            for user_id in wanted - before:
                own_user(work, user_id)
            groups.change_group_members(work.connection, group, added=wanted - before, removed=before - wanted)
            _regroup(work, group, wanted ^ before)
            names = users.user_names(work.connection, wanted ^ before)
            changes = [
                f"{words} {_some(names[user_id] for user_id in ids)}"
                for words, ids in (("added", wanted - before), ("took out", before - wanted))
                if ids
            ]
            doing = "Made group" if is_new else "Changed group"
            work.record(f"{doing} {title}: {'; '.join(changes) or 'nobody in it'}", target_id=group)
            return True

        return attempt.write(change)


def id_of(instance: Instance, actor: Actor, name: str) -> int:
    """The id of a group of the actor's workspace. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "people:read", "see a group", target_kind="group") as attempt:
        return attempt.read(lambda connection: group_named(connection, actor, name)).id


def put(instance: Instance, actor: Actor, name: str, members: Iterable[str] | None) -> Group:
    """Make a group with exactly these users; None leaves those who are in it.

    Raises Refusal INVALID for an unknown user, FORBIDDEN, or LIMIT.
    """

    def change(joined: Instance, connection: Connection) -> None:
        ids = [user_named(connection, actor, one, field="members").id for one in dict.fromkeys(members or ())]
        ensure(joined, actor, name=name, user_ids=ids, exactly=members is not None)

    return _changed(instance, actor, name, "set a group", change, must_exist=False)


def add_member(instance: Instance, actor: Actor, name: str, user: str) -> Group:
    """Put a user into a group; nothing changes where they are in it. Raises Refusal MISSING or FORBIDDEN."""

    def change(joined: Instance, connection: Connection) -> None:
        ensure(joined, actor, name=name, user_ids=[user_named(connection, actor, user).id], exactly=False)

    return _changed(instance, actor, name, "put a user into a group", change)


def may_add_member(instance: Instance, actor: Actor, name: str, user: str) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not put this user into the group."""
    with _attempt(instance, actor, "put a user into a group") as attempt:
        attempt.read(lambda connection: (_get(connection, actor, name), user_named(connection, actor, user)))


def remove_member(instance: Instance, actor: Actor, name: str, user: str) -> Group:
    """Take a user out of a group; keys that nothing else lets in leave the hosts.

    Raises Refusal MISSING or FORBIDDEN.
    """

    def change(joined: Instance, connection: Connection) -> None:
        group = _get(connection, actor, name)
        user_id = user_named(connection, actor, user).id
        held = groups.group_member_ids(connection, group.id)
        if user_id not in held:
            raise missing("member")
        ensure(joined, actor, name=name, user_ids=held - {user_id})

    return _changed(instance, actor, name, "take a user out of a group", change)


def delete(instance: Instance, actor: Actor, name: str) -> Group:
    """Delete a group with its grants, and answer it as it was; keys that nothing else lets in leave the hosts.

    Raises Refusal MISSING or FORBIDDEN.
    """
    with _attempt(instance, actor, "delete a group") as attempt:

        def run(work: Work) -> Group:
            group = _get(work.connection, actor, name)
            held = grants.grants_of_group(work.connection, group.id)
            # Emptied first, which takes the keys from the hosts; its grants let nobody in then.
            ensure(within(work), actor, name=name, user_ids=())
            groups.remove(work.connection, group.id)
            with_it = f", and took back what it was granted: {_logins(held)}" if held else ""
            work.record(f"Deleted group {group.name}{with_it}", target_id=group.id, level="warning")
            return group

        return attempt.write(run)


def _changed(
    instance: Instance,
    actor: Actor,
    name: str,
    aim: str,
    change: _Change,
    *,
    must_exist: bool = True,
) -> Group:
    with _attempt(instance, actor, aim) as attempt:

        def run(work: Work) -> Group:
            if must_exist:
                _get(work.connection, actor, name)
            work.no_event("ensure() leaves it")
            change(within(work), work.connection)
            return _get(work.connection, actor, name)

        return attempt.write(run)


def _attempt(instance: Instance, actor: Actor, aim: str) -> Attempt:
    return Attempt(instance, actor, "people:write", aim, target_kind="group")


def _get(connection: Connection, actor: Actor, name: str) -> Group:
    return _record(connection, group_named(connection, actor, name))


def _record(connection: Connection, row: groups.GroupRow) -> Group:
    return Group(row.id, row.name, row.created_at, groups.member_names(connection, row.id))


def _some(names: Iterable[str]) -> str:
    """Names, sorted; of more than a hundred the first hundred."""
    ordered = sorted(names)
    rest = len(ordered) - 100
    return ", ".join(ordered[:100]) + (f" and {rest} more" if rest > 0 else "")


def _logins(held: Iterable[Grant]) -> str:
    return _some(f"{one.system_user} on {_place(one)} (grant {one.id})" for one in held)


def _place(grant: Grant) -> str:
    """Where a grant is for; a server by its id, as a name that cannot be had must keep no group from being deleted."""
    if grant.all_servers:
        return "all hosts"
    return f"hosts with the tag {grant.tag}" if grant.tag is not None else f"server {grant.server_id}"


def _regroup(work: Work, group: int, user_ids: frozenset[int]) -> None:
    """Bring the keys of users who entered or left a group to the servers of its grants, or take them away."""
    opened: set[int] = set()
    for grant in grants.grants_of_group(work.connection, group):
        opened |= grants.servers_of_grant(work.connection, grant)
        refusal = policy.may(work.actor, "grants:write")
        if refusal is not None:
            raise refusal
    if not opened:
        return
    pairs = [
        (key.fingerprint, key.public_key)
        for user_id in sorted(user_ids)
        for key in user_keys.keys_of_user(work.connection, user_id)
        if key.fingerprint and key.public_key
    ]
    propagation.unrevoke(work, opened, (fingerprint for fingerprint, _ in pairs))
    propagation.withdrawn(work, opened, pairs)
