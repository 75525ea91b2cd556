"""Questions about who a server's grants let in, and where keys open anything; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Connection, Select, Table, select, union

from keyrack.model import Grant, UserKey
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.keys.grants import applies, grant_of, in_time, with_users
from keyrack.store.keys.terms import in_force
from keyrack.store.keys.user_keys import user_key_of
from keyrack.store.per_server import shared
from keyrack.store.rows import Records
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import credentials, grants, group_members, groups, server_tags, servers, user_keys, users


@dataclass(frozen=True, slots=True)
class GrantedKey:
    """A user's key that a grant puts on a server. altered: of the rows that it follows from, the first that others
    altered, as its table and primary key; None if there is none.
    """

    grant: Grant
    user_key: UserKey
    altered: tuple[str, Any] | None


def _keys_of(which: ColumnElement[bool], user_id: int | None) -> Select[Any]:
    """Grants, each with each key of its users. which: a condition on the grants."""
    statement = (
        with_users(select(grants, *seals.columns(user_keys, "key_")))
        .join(user_keys, user_keys.c.user_id == users.c.id)
        .where(which, users.c.disabled_at.is_(None), user_keys.c.public_key.is_not(None))
        .order_by(grants.c.id, user_keys.c.id)
    )
    return statement if user_id is None else statement.where(users.c.id == user_id)


@prepared
def _granted_keys(server_id: int, workspace_id: int, at: datetime, user_id: int | None) -> Select[Any]:
    statement = _keys_of(applies(server_id, workspace_id, at), user_id)
    return statement.where(in_force(user_keys.c.expires_at, at))


@prepared
def _keys_of_grants(grant_ids: Sequence[int], at: datetime, user_id: int | None) -> Select[Any]:
    return _keys_of(among(grants.c.id, grant_ids), user_id).where(in_force(user_keys.c.expires_at, at))


@prepared
def _applying(server_ids: Sequence[int], workspace_id: int, at: datetime) -> CompoundSelect[Any]:
    """For several servers the grants that open them, as `applies` has it for one."""
    named = select(grants.c.server_id, grants.c.id).where(among(grants.c.server_id, server_ids))
    tagged = (
        select(server_tags.c.server_id, grants.c.id)
        .join(grants, grants.c.tag == server_tags.c.tag)
        .where(among(server_tags.c.server_id, server_ids))
    )
    everywhere = (
        select(servers.c.id.label("server_id"), grants.c.id)
        .join(grants, grants.c.all_servers.is_(True))
        .where(among(servers.c.id, server_ids))
    )
    selects = [one.where(in_time(workspace_id, at)) for one in (named, tagged, everywhere)]
    return union(*selects)


def granted_keys(
    connection: Connection, server_id: int, workspace_id: int, at: datetime, user_id: int | None = None
) -> Sequence[GrantedKey]:
    """Each grant in force on a server with each key of each of its users; user_id: only with the keys of this user."""
    name = ("granted keys", workspace_id, at, user_id)
    several = shared(
        connection, server_id, name, lambda them: _OfServers.read(connection, them, workspace_id, at, user_id)
    )
    if several is not None:
        return several.of(server_id)
    rows = _grants_with_keys.all(connection, _granted_keys, server_id, workspace_id, at, user_id)
    ways = _Ways.read(connection, server_id, workspace_id, at) if rows else _Ways.none()
    return [_judged(row, ways.altered(row.grant, row.user_key)) for row in rows]


def _judged(row: GrantedKey, altered: tuple[str, Any] | None) -> GrantedKey:
    """A grant and a key, marked with an altered row between them unless one of the two is altered itself."""
    return row if row.altered is not None or altered is None else replace(row, altered=altered)


@dataclass(frozen=True, slots=True)
class _OfServers:
    """What grants put on several servers; a grant that opens many of them is read once with its keys. grants: ids of
    grants by server; keys: by grant; tags: by server and tag whether the row is as Keyrack wrote it.
    """

    grants: Mapping[int, Sequence[int]]
    keys: Mapping[int, Sequence[GrantedKey]]
    tags: Mapping[tuple[int, str], bool]

    @classmethod
    def read(
        cls, connection: Connection, server_ids: Sequence[int], workspace_id: int, at: datetime, user_id: int | None
    ) -> _OfServers:
        applying: dict[int, list[int]] = {}
        for row in _applying.rows(connection, server_ids, workspace_id, at):
            applying.setdefault(row.server_id, []).append(row.id)
        numbers = sorted({grant for some in applying.values() for grant in some})
        if not numbers:
            return cls({}, {}, {})
        ways = _Ways.of_grants(connection, numbers)
        keys: dict[int, list[GrantedKey]] = {}
        for granted in _grants_with_keys.all(connection, _keys_of_grants, numbers, at, user_id):
            altered = ways.altered_beyond_tags(granted.grant, granted.user_key)
            keys.setdefault(granted.grant.id, []).append(_judged(granted, altered))
        tags = dict(_tags_of_several.all(connection, _tags_of_servers, server_ids))
        return cls({server: sorted(some) for server, some in applying.items()}, keys, tags)

    def of(self, server_id: int) -> Sequence[GrantedKey]:
        """The granted keys of one server, in the order of the ids of grants and keys."""
        keys: list[GrantedKey] = []
        for number in self.grants.get(server_id, ()):
            rows = self.keys.get(number, ())
            tag = rows[0].grant.tag if rows else None
            if tag is not None and not self.tags.get((server_id, tag)):
                rows = [_judged(row, ("server_tags", f"{server_id},{tag}")) for row in rows]
            keys += rows
        return keys


def _grant_with_key(connection: Connection, row: Row) -> GrantedKey:
    """A grant and a key; altered: only by their own two rows."""
    grant, key = grant_of(seals.part(row, grants)), user_key_of(seals.part(row, user_keys, "key_"))
    altered: tuple[str, Any] | None = None
    if not sealed.holds(connection, grants, row):
        altered = ("grants", grant.id)
    elif not sealed.holds(connection, user_keys, row, "key_"):
        altered = ("user_keys", key.id)
    return GrantedKey(grant, key, altered)


# Those with an altered row are not kept, as it may be put right.
_grants_with_keys = Records(_grant_with_key, named=("id", "key_id"), keep=lambda granted: granted.altered is None)


def _by_group(which: ColumnElement[bool]) -> Select[Any]:
    return select(grants.c.group_id).where(which, grants.c.group_id.is_not(None))


def _people_of(which: ColumnElement[bool]) -> Select[Any]:
    by_name = select(grants.c.user_id).where(which, grants.c.user_id.is_not(None))
    of_groups = select(group_members.c.user_id).where(group_members.c.group_id.in_(_by_group(which)))
    return select(users).where(users.c.id.in_(union(by_name, of_groups)))


def _groups_of(which: ColumnElement[bool]) -> Select[Any]:
    return select(groups).where(groups.c.id.in_(_by_group(which)))


def _members_of(which: ColumnElement[bool]) -> Select[Any]:
    return select(group_members).where(group_members.c.group_id.in_(_by_group(which)))


@prepared
def _granted_people(server_id: int, workspace_id: int, at: datetime) -> Select[Any]:
    return _people_of(applies(server_id, workspace_id, at))


@prepared
def _granted_groups(server_id: int, workspace_id: int, at: datetime) -> Select[Any]:
    return _groups_of(applies(server_id, workspace_id, at))


@prepared
def _granted_members(server_id: int, workspace_id: int, at: datetime) -> Select[Any]:
    return _members_of(applies(server_id, workspace_id, at))


@prepared
def _people_of_grants(grant_ids: Sequence[int]) -> Select[Any]:
    return _people_of(among(grants.c.id, grant_ids))


@prepared
def _groups_of_grants(grant_ids: Sequence[int]) -> Select[Any]:
    return _groups_of(among(grants.c.id, grant_ids))


@prepared
def _members_of_grants(grant_ids: Sequence[int]) -> Select[Any]:
    return _members_of(among(grants.c.id, grant_ids))


@prepared
def _tags_of(server_id: int) -> Select[Any]:
    return select(server_tags).where(server_tags.c.server_id == server_id)


@prepared
def _tags_of_servers(server_ids: Sequence[int]) -> Select[Any]:
    return select(server_tags).where(among(server_tags.c.server_id, server_ids))


@dataclass(frozen=True, slots=True)
class _Ways:
    """The rows that lead from grants to keys, each with whether it is as Keyrack wrote it."""

    users: Mapping[int, bool]
    groups: Mapping[int, bool]
    members: Mapping[tuple[int, int], bool]
    server_id: int
    tags: Mapping[str, bool]

    @classmethod
    def none(cls) -> _Ways:
        """Where nothing is granted."""
        return cls({}, {}, {}, 0, {})

    @classmethod
    def read(cls, connection: Connection, server_id: int, workspace_id: int, at: datetime) -> _Ways:
        """The rows for all grants in force on a server; each is read once, however many keys it leads to."""
        place = (server_id, workspace_id, at)
        return cls(
            users=dict(_people.all(connection, _granted_people, *place)),
            groups=dict(_groups.all(connection, _granted_groups, *place)),
            members=dict(_members.all(connection, _granted_members, *place)),
            server_id=server_id,
            tags=dict(_tags.all(connection, _tags_of, server_id)),
        )

    @classmethod
    def of_grants(cls, connection: Connection, grant_ids: Sequence[int]) -> _Ways:
        """The rows for some grants, whichever servers they open; without tags."""
        return cls(
            users=dict(_people.all(connection, _people_of_grants, grant_ids)),
            groups=dict(_groups.all(connection, _groups_of_grants, grant_ids)),
            members=dict(_members.all(connection, _members_of_grants, grant_ids)),
            server_id=0,
            tags={},
        )

    def altered(self, grant: Grant, key: UserKey) -> tuple[str, Any] | None:
        """The first altered row between a grant and a key: its table, and its primary key, several columns as "5,6"."""
        beyond = self.altered_beyond_tags(grant, key)
        if beyond is None and grant.tag is not None and not self.tags.get(grant.tag):
            return "server_tags", f"{self.server_id},{grant.tag}"
        return beyond

    def altered_beyond_tags(self, grant: Grant, key: UserKey) -> tuple[str, Any] | None:
        """The same without the row of the server's tag."""
        if not self.users.get(key.user_id):
            return "users", key.user_id
        if grant.user_id == key.user_id:
            return None
        group = grant.group_id or 0
        if not self.groups.get(group):
            return "groups", group
        return None if self.members.get((group, key.user_id)) else ("group_members", f"{group},{key.user_id}")


def _held(table: Table, *named: str) -> Records[tuple[Any, bool]]:
    """Records of a table's rows: the value or values of the columns in `named`, and whether the row is sound."""

    def make(connection: Connection, row: Row) -> tuple[Any, bool]:
        name = row[named[0]] if len(named) == 1 else tuple(row[column] for column in named)
        return name, sealed.holds(connection, table, row)

    return Records(make, named=sealed.key_names(table), keep=lambda checked: checked[1], table=table)


_people, _groups = _held(users, "id"), _held(groups, "id")
_members, _tags = _held(group_members, "group_id", "user_id"), _held(server_tags, "tag")
_tags_of_several = _held(server_tags, "server_id", "tag")


@prepared
def _servers_with_credentials(workspace_id: int, fingerprints: Sequence[str], at: datetime) -> Select[Any]:
    return (
        select(credentials.c.server_id)
        .distinct()
        .join(servers, servers.c.id == credentials.c.server_id)
        .where(
            servers.c.workspace_id == workspace_id,
            among(credentials.c.fingerprint, fingerprints),
            in_force(credentials.c.expires_at, at),
        )
    )


def servers_with_credentials(
    connection: Connection, workspace_id: int, fingerprints: Sequence[str], at: datetime
) -> frozenset[int]:
    """The ids of the workspace's servers with a credential in force of one of these keys."""
    return frozenset(_servers_with_credentials.values(connection, workspace_id, fingerprints, at))
