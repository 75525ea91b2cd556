"""Questions about credentials, user keys, grants and revocations; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Table, and_, func, or_, select, union

from keyrack.model import Credential, Grant, Page, UserKey
from keyrack.store import sealed
from keyrack.store.dialect import dialect_insert
from keyrack.store.rows import contains, inserted, page
from keyrack.store.tables import (
    credentials,
    grants,
    group_members,
    groups,
    key_owners,
    revocations,
    revoked_keys,
    server_tags,
    servers,
    system_users,
    user_keys,
    users,
)


@dataclass(frozen=True, slots=True)
class GrantedKey:
    """A user's key that a grant puts on a server. broken: the table and key of a row that makes it so and is not as
    Keyrack wrote it, None where all are.
    """

    grant: Grant
    user_key: UserKey
    broken: tuple[str, Any] | None


_credential = (
    select(
        credentials,
        system_users.c.username,
        (servers.c.applied_revision >= credentials.c.revision).label("delivered"),
    )
    .join(system_users, system_users.c.id == credentials.c.system_user_id)
    .join(servers, servers.c.id == credentials.c.server_id)
)


def in_force(column: Any, at: datetime) -> ColumnElement[bool]:
    """A condition: there is no end, or it is still to come."""
    return or_(column.is_(None), column > at)


def add_credential(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a credential (the columns of the table); answers its id."""
    return inserted(connection, credentials, values)


def get_credential(connection: Connection, server_id: int, credential_id: int, at: datetime) -> Credential | None:
    """A credential of this server that has not ended, or None."""
    statement = _credential.where(
        credentials.c.id == credential_id,
        credentials.c.server_id == server_id,
        in_force(credentials.c.expires_at, at),
    )
    row = connection.execute(statement).one_or_none()
    return None if row is None else _credential_record(row)


def credential_by_label(connection: Connection, server_id: int, label: str) -> Credential | None:
    """The credential with this label on this server, ended or not, or None."""
    statement = _credential.where(credentials.c.server_id == server_id, credentials.c.label == label)
    row = connection.execute(statement).one_or_none()
    return None if row is None else _credential_record(row)


def find_credentials(
    connection: Connection, server_id: int, *, at: datetime, search: str = "", offset: int, limit: int
) -> Page[Credential]:
    """A page of a server's credentials in force, oldest first; search: part of label or system user.

    Which ones and how many is answered from an index, and no more than a page of them is read and joined.
    """
    of_server = credentials.c.server_id == server_id
    ids = select(credentials.c.id).where(of_server, in_force(credentials.c.expires_at, at))
    if search:
        ids = ids.join(system_users, system_users.c.id == credentials.c.system_user_id).where(
            or_(contains(credentials.c.label, search), contains(system_users.c.username, search))
        )
        total = connection.execute(select(func.count()).select_from(ids.subquery())).scalar_one()
    else:
        everything = select(func.count()).select_from(credentials).where(of_server)
        total = connection.execute(everything).scalar_one()
        total -= connection.execute(everything.where(credentials.c.expires_at <= at)).scalar_one()
    chosen = list(connection.execute(ids.order_by(credentials.c.id).offset(offset).limit(limit)).scalars())
    rows = connection.execute(_credential.where(credentials.c.id.in_(chosen)).order_by(credentials.c.id))
    items = tuple(_credential_record(row) for row in rows)
    return Page(items=items, total=total, offset=offset, limit=limit)


def credentials_of_system_user(connection: Connection, system_user_id: int) -> tuple[Credential, ...]:
    """All credentials of one system user, ended or not."""
    rows = connection.execute(_credential.where(credentials.c.system_user_id == system_user_id))
    return tuple(_credential_record(row) for row in rows)


def note_delivery(connection: Connection, server_id: int, revision: int, at: datetime) -> None:
    """A host obeys a revision: since now its keys up to that revision are delivered, unless they were already."""
    sealed.change(
        connection,
        credentials,
        credentials.c.server_id == server_id,
        credentials.c.revision <= revision,
        credentials.c.delivered_at.is_(None),
        values={"delivered_at": at},
    )


def ended_credentials(connection: Connection, at: datetime, limit: int) -> tuple[Credential, ...]:
    """Credentials whose end has come, at most `limit` of them, the earliest end first, as the index has them."""
    ended = credentials.c.expires_at
    statement = _credential.where(ended <= at).order_by(ended, credentials.c.id).limit(limit)
    return tuple(_credential_record(row) for row in connection.execute(statement))


def remove_credential(connection: Connection, credential_id: int) -> bool:
    """Delete a credential; False when it was gone already."""
    return sealed.remove(connection, credentials, credentials.c.id == credential_id) == 1


def add_user_key(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a user key (the columns of the table); answers its id."""
    return inserted(connection, user_keys, values)


def claim_fingerprint(connection: Connection, fingerprint: str, *, kind: str, user_key_id: int | None) -> bool:
    """Make a key lead to one identity (kind "user" or "deploy"); False when it leads to one already."""
    statement = dialect_insert(connection, key_owners).values(
        fingerprint=fingerprint, kind=kind, user_key_id=user_key_id
    )
    claimed = statement.on_conflict_do_nothing().returning(key_owners.c.fingerprint)
    return connection.execute(claimed).scalar() is not None


def owner_of(connection: Connection, fingerprint: str) -> tuple[str, UserKey | None] | None:
    """To what a key leads: ("user", its user key) or ("deploy", None); None when to nothing."""
    statement = select(key_owners).where(key_owners.c.fingerprint == fingerprint)
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    if row.user_key_id is None:
        return row.kind, None
    return row.kind, _user_key_or_none(connection, select(user_keys).where(user_keys.c.id == row.user_key_id))


def get_user_key(connection: Connection, user_id: int, key_id: int) -> UserKey | None:
    """A key of this user, or None."""
    statement = select(user_keys).where(user_keys.c.id == key_id, user_keys.c.user_id == user_id)
    return _user_key_or_none(connection, statement)


def find_user_keys(connection: Connection, user_id: int, *, search: str = "", offset: int, limit: int) -> Page[UserKey]:
    """A page of a user's keys, newest first; search: part of the title, any case."""
    statement = select(user_keys).where(user_keys.c.user_id == user_id)
    if search:
        statement = statement.where(contains(user_keys.c.title, search))
    return page(connection, statement.order_by(user_keys.c.id.desc()), _user_key, offset=offset, limit=limit)


def user_keys_of_workspace(
    connection: Connection, workspace_id: int, *, user_id: int | None = None, offset: int, limit: int
) -> Page[UserKey]:
    """A page of the keys of a workspace's users, newest first; user_id: of this one alone."""
    statement = select(user_keys).where(user_keys.c.workspace_id == workspace_id)
    if user_id is not None:
        statement = statement.where(user_keys.c.user_id == user_id)
    return page(connection, statement.order_by(user_keys.c.id.desc()), _user_key, offset=offset, limit=limit)


def page_of_grants(connection: Connection, workspace_id: int, *, offset: int, limit: int) -> Page[Grant]:
    """A page of a workspace's grants, oldest first."""
    statement = select(grants).where(grants.c.workspace_id == workspace_id).order_by(grants.c.id)
    return page(connection, statement, grant_of, offset=offset, limit=limit)


def count_user_keys(connection: Connection, user_id: int) -> int:
    """How many keys a user has."""
    return find_user_keys(connection, user_id, offset=0, limit=1).total


def keys_of_user(connection: Connection, user_id: int) -> tuple[UserKey, ...]:
    """All of a user's keys that hold a key."""
    statement = select(user_keys).where(user_keys.c.user_id == user_id, user_keys.c.public_key.is_not(None))
    return tuple(_user_key(row) for row in connection.execute(statement))


def remove_user_key(connection: Connection, key_id: int) -> None:
    """Delete a user key; its claim on the fingerprint goes with it."""
    sealed.remove(connection, user_keys, user_keys.c.id == key_id)


def add_grant(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a grant (the columns of the table); answers its id."""
    return inserted(connection, grants, values)


def find_grants(connection: Connection, workspace_id: int) -> tuple[Grant, ...]:
    """All grants of a workspace, oldest first."""
    statement = select(grants).where(grants.c.workspace_id == workspace_id).order_by(grants.c.id)
    return tuple(grant_of(row) for row in connection.execute(statement))


def get_grant(connection: Connection, workspace_id: int, grant_id: int) -> Grant | None:
    """A grant of this workspace, or None."""
    statement = select(grants).where(grants.c.id == grant_id, grants.c.workspace_id == workspace_id)
    row = connection.execute(statement).one_or_none()
    return None if row is None else grant_of(row)


def remove_grant(connection: Connection, grant_id: int) -> None:
    """Delete a grant."""
    sealed.remove(connection, grants, grants.c.id == grant_id)


def grants_of_group(connection: Connection, group_id: int) -> tuple[Grant, ...]:
    """The grants of one group, ended or not."""
    rows = connection.execute(select(grants).where(grants.c.group_id == group_id).order_by(grants.c.id))
    return tuple(grant_of(row) for row in rows)


def grants_of_user(connection: Connection, user_id: int, at: datetime) -> tuple[Grant, ...]:
    """The grants in force that let a user in, by name or by group."""
    statement = select(grants).where(_grants_of_user(user_id), in_force(grants.c.expires_at, at))
    return tuple(grant_of(row) for row in connection.execute(statement.order_by(grants.c.id)))


def servers_of_grant(connection: Connection, grant: Grant) -> frozenset[int]:
    """The ids of the servers that a grant opens."""
    if grant.server_id is not None:
        return frozenset((grant.server_id,))
    statement = (
        select(server_tags.c.server_id)
        .join(servers, servers.c.id == server_tags.c.server_id)
        .where(server_tags.c.tag == grant.tag, servers.c.workspace_id == grant.workspace_id)
    )
    return frozenset(connection.execute(statement).scalars())


def servers_of_user(connection: Connection, user_id: int) -> frozenset[int]:
    """The ids of the servers on which a user's keys stand, by whichever grant."""
    mine = _grants_of_user(user_id)
    direct = select(grants.c.server_id).where(mine, grants.c.server_id.is_not(None))
    tagged = (
        select(server_tags.c.server_id)
        .join(grants, grants.c.tag == server_tags.c.tag)
        .join(
            servers,
            and_(servers.c.id == server_tags.c.server_id, servers.c.workspace_id == grants.c.workspace_id),
        )
        .where(mine)
    )
    return frozenset(connection.execute(union(direct, tagged)).scalars())


def granted_keys(connection: Connection, server_id: int, workspace_id: int, at: datetime) -> tuple[GrantedKey, ...]:
    """What grants in force put on a server: each grant with each key of each user it is for."""
    tags = select(server_tags.c.tag).where(server_tags.c.server_id == server_id)
    applies = and_(
        grants.c.workspace_id == workspace_id,
        or_(grants.c.server_id == server_id, grants.c.tag.in_(tags)),
        in_force(grants.c.expires_at, at),
    )
    statement = (
        select(grants, *sealed.columns(user_keys, "key_"))
        .select_from(grants)
        .outerjoin(group_members, group_members.c.group_id == grants.c.group_id)
        .join(users, or_(users.c.id == grants.c.user_id, users.c.id == group_members.c.user_id))
        .join(user_keys, user_keys.c.user_id == users.c.id)
        .where(applies, users.c.disabled_at.is_(None), user_keys.c.public_key.is_not(None))
        .order_by(grants.c.id, user_keys.c.id)
    )
    ways = _Ways.read(connection, server_id, applies)
    known: dict[tuple[str, int], bool] = {}
    found = []
    for row in connection.execute(statement):
        grant = grant_of(sealed.part(row, grants))
        key = _user_key(sealed.part(row, user_keys, "key_"))
        if ("grant", grant.id) not in known:
            known["grant", grant.id] = sealed.holds(connection, grants, row)
        if ("key", key.id) not in known:
            known["key", key.id] = sealed.holds(connection, user_keys, row, "key_")
        if not known["grant", grant.id]:
            broken: tuple[str, Any] | None = ("grants", grant.id)
        elif not known["key", key.id]:
            broken = ("user_keys", key.id)
        else:
            broken = ways.broken(grant, key)
        found.append(GrantedKey(grant, key, broken))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Ways:
    """The rows between a grant and a key: which of them are as Keyrack wrote them."""

    users: Mapping[int, bool]
    groups: Mapping[int, bool]
    members: Mapping[tuple[int, int], bool]
    server_id: int
    tags: Mapping[str, bool]

    @classmethod
    def read(cls, connection: Connection, server_id: int, applies: ColumnElement[bool]) -> _Ways:
        """Those that the grants that apply lead over; each is read once, however many keys it leads to."""
        by_group = select(grants.c.group_id).where(applies, grants.c.group_id.is_not(None))
        people = union(
            select(grants.c.user_id).where(applies, grants.c.user_id.is_not(None)),
            select(group_members.c.user_id).where(group_members.c.group_id.in_(by_group)),
        )

        def rows(table: Table, *where: Any) -> Iterator[tuple[Any, bool]]:
            for row in connection.execute(select(table).where(*where)):
                yield row, sealed.holds(connection, table, row)

        return cls(
            users={row.id: holds for row, holds in rows(users, users.c.id.in_(people))},
            groups={row.id: holds for row, holds in rows(groups, groups.c.id.in_(by_group))},
            members={
                (row.group_id, row.user_id): holds
                for row, holds in rows(group_members, group_members.c.group_id.in_(by_group))
            },
            server_id=server_id,
            tags={row.tag: holds for row, holds in rows(server_tags, server_tags.c.server_id == server_id)},
        )

    def broken(self, grant: Grant, key: UserKey) -> tuple[str, Any] | None:
        """The first row between them that is not as Keyrack wrote it: its table, and its primary key in one."""
        if not self.users.get(key.user_id):
            return "users", key.user_id
        if grant.server_id != self.server_id and not self.tags.get(grant.tag or ""):
            return "server_tags", f"{self.server_id},{grant.tag}"
        if grant.user_id == key.user_id:
            return None
        group = grant.group_id or 0
        if not self.groups.get(group):
            return "groups", group
        return None if self.members.get((group, key.user_id)) else ("group_members", f"{group},{key.user_id}")


def sealed_credentials(connection: Connection, server_id: int, at: datetime) -> tuple[tuple[Credential, bool], ...]:
    """All credentials of a server that are in force, each with whether its row and that of its system user are as
    Keyrack wrote them.
    """
    return _with_seals(connection, server_id, in_force(credentials.c.expires_at, at))


def credentials_with_seals(
    connection: Connection, server_id: int, *, label: str | None = None
) -> tuple[tuple[Credential, bool], ...]:
    """The credentials of a server, ended or not, or the one with a label, each with whether it holds."""
    where = [] if label is None else [credentials.c.label == label]
    return _with_seals(connection, server_id, *where)


def _with_seals(connection: Connection, server_id: int, *where: Any) -> tuple[tuple[Credential, bool], ...]:
    accounts = {
        row.id: sealed.sound(connection, system_users, row)
        for row in connection.execute(select(system_users).where(system_users.c.server_id == server_id))
    }
    rows = connection.execute(
        _credential.where(credentials.c.server_id == server_id, *where).order_by(credentials.c.id)
    )
    return tuple(
        (
            _credential_record(row),
            sealed.holds(connection, credentials, row) and accounts.get(row.system_user_id, False),
        )
        for row in rows
    )


def user_key_holds(connection: Connection, workspace_id: int, key_id: int) -> bool | None:
    """Whether a user key of a workspace is as Keyrack wrote it; None where there is none."""
    statement = select(user_keys).where(user_keys.c.workspace_id == workspace_id, user_keys.c.id == key_id)
    row = connection.execute(statement).one_or_none()
    return None if row is None else sealed.holds(connection, user_keys, row)


def sound_grants(connection: Connection, workspace_id: int) -> tuple[Grant, ...]:
    """The grants of a workspace that are as Keyrack wrote them."""
    rows = connection.execute(select(grants).where(grants.c.workspace_id == workspace_id).order_by(grants.c.id))
    return tuple(grant_of(row) for row in rows if sealed.holds(connection, grants, row))


def grant_of(row: Any) -> Grant:
    """A grant from its row."""
    return Grant(**sealed.unsealed(row))


def unrevoke(connection: Connection, server_id: int, fingerprint: str) -> None:
    """Let a key be given to a host again; one that was revoked everywhere stays refused."""
    everywhere = (
        select(revoked_keys.c.fingerprint)
        .join(servers, servers.c.workspace_id == revoked_keys.c.workspace_id)
        .where(servers.c.id == server_id, revoked_keys.c.fingerprint == fingerprint)
    )
    sealed.remove(
        connection,
        revocations,
        revocations.c.server_id == server_id,
        revocations.c.fingerprint == fingerprint,
        ~everywhere.exists(),
    )


def lets_in(connection: Connection, server_id: int, workspace_id: int, fingerprint: str, at: datetime) -> bool:
    """Whether anything on a server lets this key in."""
    credential = select(credentials.c.id).where(
        credentials.c.server_id == server_id,
        credentials.c.fingerprint == fingerprint,
        in_force(credentials.c.expires_at, at),
    )
    if connection.execute(credential.limit(1)).scalar() is not None:
        return True
    owner = select(user_keys.c.user_id).where(user_keys.c.fingerprint == fingerprint)
    tags = select(server_tags.c.tag).where(server_tags.c.server_id == server_id)
    grant = (
        select(grants.c.id)
        .outerjoin(group_members, group_members.c.group_id == grants.c.group_id)
        .join(users, or_(users.c.id == grants.c.user_id, users.c.id == group_members.c.user_id))
        .where(
            users.c.id.in_(owner),
            users.c.disabled_at.is_(None),
            grants.c.workspace_id == workspace_id,
            or_(grants.c.server_id == server_id, grants.c.tag.in_(tags)),
            in_force(grants.c.expires_at, at),
        )
    )
    return connection.execute(grant.limit(1)).scalar() is not None


def _grants_of_user(user_id: int) -> ColumnElement[bool]:
    member_of = select(group_members.c.group_id).where(group_members.c.user_id == user_id)
    return or_(grants.c.user_id == user_id, grants.c.group_id.in_(member_of))


def _user_key_or_none(connection: Connection, statement: Select[Any]) -> UserKey | None:
    row = connection.execute(statement).one_or_none()
    return None if row is None else _user_key(row)


def _user_key(row: Any) -> UserKey:
    return UserKey(**sealed.unsealed(row))


def _credential_record(row: Row[Any]) -> Credential:
    return Credential(**sealed.unsealed(row))
