"""Questions about who a server's grants let in, and where keys open anything; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, Table, or_, select, union

from keyrack.model import Grant, UserKey
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.keys.grants import applies, grant_of
from keyrack.store.keys.terms import in_force
from keyrack.store.keys.user_keys import user_key_of
from keyrack.store.rows import Records
from keyrack.store.sealing import sealed
from keyrack.store.tables import credentials, grants, group_members, groups, server_tags, servers, user_keys, users


@dataclass(frozen=True, slots=True)
class GrantedKey:
    """A user's key that a grant puts on a server. broken: the table and key of a row that makes it so and is not as
    Keyrack wrote it, None where all are.
    """

    grant: Grant
    user_key: UserKey
    broken: tuple[str, Any] | None


@prepared
def _granted_keys(server_id: int, workspace_id: int, at: datetime, user_id: int | None) -> Select[Any]:
    found = (
        select(grants, *sealed.columns(user_keys, "key_"))
        .select_from(grants)
        .outerjoin(group_members, group_members.c.group_id == grants.c.group_id)
        .join(users, or_(users.c.id == grants.c.user_id, users.c.id == group_members.c.user_id))
        .join(user_keys, user_keys.c.user_id == users.c.id)
        .where(
            applies(server_id, workspace_id, at),
            users.c.disabled_at.is_(None),
            user_keys.c.public_key.is_not(None),
            in_force(user_keys.c.expires_at, at),
        )
        .order_by(grants.c.id, user_keys.c.id)
    )
    return found if user_id is None else found.where(users.c.id == user_id)


def granted_keys(
    connection: Connection, server_id: int, workspace_id: int, at: datetime, user_id: int | None = None
) -> tuple[GrantedKey, ...]:
    """What grants in force put on a server: each grant with each key of each user it is for; user_id: of one alone."""
    rows = _grants_with_keys.all(connection, _granted_keys, server_id, workspace_id, at, user_id)
    ways = _Ways.read(connection, server_id, workspace_id, at) if rows else _Ways.none()
    found = []
    for row in rows:
        broken = row.broken or ways.broken(row.grant, row.user_key)
        found.append(row if broken == row.broken else replace(row, broken=broken))
    return tuple(found)


def _grant_with_key(connection: Connection, row: Row) -> GrantedKey:
    """A grant and a key, as far as their own rows tell."""
    grant, key = grant_of(sealed.part(row, grants)), user_key_of(sealed.part(row, user_keys, "key_"))
    broken: tuple[str, Any] | None = None
    if not sealed.holds(connection, grants, row):
        broken = ("grants", grant.id)
    elif not sealed.holds(connection, user_keys, row, "key_"):
        broken = ("user_keys", key.id)
    return GrantedKey(grant, key, broken)


# What does not hold is looked at anew each time: it may hold again.
_grants_with_keys = Records(_grant_with_key, named=("id", "key_id"), keep=lambda found: found.broken is None)


def _by_group(server_id: int, workspace_id: int, at: datetime) -> Select[Any]:
    return select(grants.c.group_id).where(applies(server_id, workspace_id, at), grants.c.group_id.is_not(None))


@prepared
def _granted_people(server_id: int, workspace_id: int, at: datetime) -> Select[Any]:
    by_name = select(grants.c.user_id).where(applies(server_id, workspace_id, at), grants.c.user_id.is_not(None))
    of_groups = select(group_members.c.user_id).where(
        group_members.c.group_id.in_(_by_group(server_id, workspace_id, at))
    )
    return select(users).where(users.c.id.in_(union(by_name, of_groups)))


@prepared
def _granted_groups(server_id: int, workspace_id: int, at: datetime) -> Select[Any]:
    return select(groups).where(groups.c.id.in_(_by_group(server_id, workspace_id, at)))


@prepared
def _granted_members(server_id: int, workspace_id: int, at: datetime) -> Select[Any]:
    return select(group_members).where(group_members.c.group_id.in_(_by_group(server_id, workspace_id, at)))


@prepared
def _tags_of(server_id: int) -> Select[Any]:
    return select(server_tags).where(server_tags.c.server_id == server_id)


@dataclass(frozen=True, slots=True)
class _Ways:
    """The rows between a grant and a key: which of them are as Keyrack wrote them."""

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
        """Those that the grants that apply lead over; each is read once, however many keys it leads to."""
        place = (server_id, workspace_id, at)
        return cls(
            users=dict(_people.all(connection, _granted_people, *place)),
            groups=dict(_groups.all(connection, _granted_groups, *place)),
            members=dict(_members.all(connection, _granted_members, *place)),
            server_id=server_id,
            tags=dict(_tags.all(connection, _tags_of, server_id)),
        )

    def broken(self, grant: Grant, key: UserKey) -> tuple[str, Any] | None:
        """The first row between them that is not as Keyrack wrote it: its table, and its primary key in one."""
        if not self.users.get(key.user_id):
            return "users", key.user_id
        if grant.tag is not None and not self.tags.get(grant.tag):
            return "server_tags", f"{self.server_id},{grant.tag}"
        if grant.user_id == key.user_id:
            return None
        group = grant.group_id or 0
        if not self.groups.get(group):
            return "groups", group
        return None if self.members.get((group, key.user_id)) else ("group_members", f"{group},{key.user_id}")


def _held(table: Table, *named: str) -> Records[tuple[Any, bool]]:
    """Rows of a table by what names them, one column or several, each with whether it is as Keyrack wrote it."""

    def make(connection: Connection, row: Row) -> tuple[Any, bool]:
        name = row[named[0]] if len(named) == 1 else tuple(row[column] for column in named)
        return name, sealed.holds(connection, table, row)

    return Records(make, named=sealed.key_names(table), keep=lambda found: found[1])


_people, _groups = _held(users, "id"), _held(groups, "id")
_members, _tags = _held(group_members, "group_id", "user_id"), _held(server_tags, "tag")


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
