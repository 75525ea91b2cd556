"""Questions about credentials, user keys, grants and revocations; must decide nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Update,
    and_,
    func,
    literal_column,
    or_,
    select,
    union,
    update,
)

from keyrack.model import Credential, Grant, Page, Place, UserKey, Window
from keyrack.store.dialect import insert_of
from keyrack.store.engine.prepared import CompiledStatement, Row, Statement, among, placeholder, prepared
from keyrack.store.per_server import per_server
from keyrack.store.rows import Records, inserted, matches, paged, pattern
from keyrack.store.sealing import sealed, sealed_sets
from keyrack.store.tables import (
    credentials,
    grants,
    group_members,
    key_owners,
    server_tags,
    servers,
    system_users,
    user_keys,
)
from keyrack.store.tables.columns import Moment
from keyrack.store.unchanged import kept

_DELIVERED = "delivered"
MOST_CHECKED = 60_000
"""Credentials whose records are kept in memory with their seals checked; some 1.3 kB each."""
MOST_ALIKE = 100
GrantPlace = tuple[int | None, int | None, int | None, str | None]
_NO_END = literal_column(str(2**63 - 1), Moment)
"""Later than each end, as the column holds it: see in_force."""

_credential = (
    select(
        credentials,
        system_users.c.username,
        (servers.c.applied_revision >= credentials.c.revision).label(_DELIVERED),
    )
    .join(system_users, system_users.c.id == credentials.c.system_user_id)
    .join(servers, servers.c.id == credentials.c.server_id)
)
# Without the time since when a host has it: each row would be another one, to be checked anew, once it has.
_to_check = (
    select(
        *(column for column in credentials.c if column.name != "delivered_at"),
        system_users.c.username,
        (servers.c.applied_revision >= credentials.c.revision).label(_DELIVERED),
    )
    .join(system_users, system_users.c.id == credentials.c.system_user_id)
    .join(servers, servers.c.id == credentials.c.server_id)
)


def credential_question() -> Select[Any]:
    """A question for credentials with their accounts' names and whether hosts were told, without a condition."""
    return _credential


def in_force(column: Any, at: datetime) -> ColumnElement[bool]:
    """A condition: there is no end, or it is still to come.

    No `OR`: nearly every row meets it, and SQLite from about 3.46 on looks for both halves by an index of ends, which
    reads the whole table, where the index that the rest of the question names has ten rows.
    """
    return func.coalesce(column, _NO_END) > at


def is_frozen(frozen_at: datetime | None, confirmed_at: datetime | None, created_at: datetime) -> bool:
    """Whether a key opens no new session: it was frozen, and neither confirmed nor entered since."""
    return frozen_at is not None and max(confirmed_at or created_at, created_at) <= frozen_at


def begun(at: datetime) -> ColumnElement[bool]:
    """A condition: a grant has no start, or it came."""
    return or_(grants.c.starts_at.is_(None), grants.c.starts_at <= at)


def add_credential(
    connection: Connection, username: str, values: Mapping[str, Any], number: sealed_sets.Ids
) -> Credential:
    """Insert a credential (the columns of the table) of the system user with this name; answers it.

    number: what was reserved for it.
    """
    (row,) = sealed_sets.insert_many(connection, credentials, [values], number)
    return Credential(**sealed.unsealed(row), username=username, delivered=False)


def _one_in_force(server_id: int, credential_id: int, at: datetime) -> Select[Any]:
    return _credential.where(
        credentials.c.id == credential_id,
        credentials.c.server_id == server_id,
        in_force(credentials.c.expires_at, at),
    )


_credential_by_id = prepared(_one_in_force)


@prepared
def _own_credential(workspace_id: int, server_id: int, credential_id: int, at: datetime) -> Select[Any]:
    return _one_in_force(server_id, credential_id, at).where(servers.c.workspace_id == workspace_id)


def get_credential(connection: Connection, server_id: int, credential_id: int, at: datetime) -> Credential | None:
    """A credential of this server that has not ended, or None."""
    return credential_records.one(connection, _credential_by_id, server_id, credential_id, at)


def own_credential(
    connection: Connection, workspace_id: int, server_id: int, credential_id: int, at: datetime
) -> Credential | None:
    """The same of a server of this workspace."""
    return kept(
        connection,
        ("credential", workspace_id, server_id, credential_id),
        lambda: credential_records.one(connection, _own_credential, workspace_id, server_id, credential_id, at),
        at=at,
        until=lambda found: at if found is None else found.expires_at,
    )


@prepared
def _credential_by_label(server_id: int, label: str) -> Select[Any]:
    return _credential.where(credentials.c.server_id == server_id, credentials.c.label == label)


def credential_by_label(connection: Connection, server_id: int, label: str) -> Credential | None:
    """The credential with this label on this server, ended or not, or None."""
    row = _credential_by_label.row(connection, server_id, label)
    return None if row is None else _credential_record(row)


@prepared
def _credentials_of_system_user(system_user_id: int) -> Select[Any]:
    return _credential.where(credentials.c.system_user_id == system_user_id)


def credentials_of_system_user(connection: Connection, system_user_id: int) -> tuple[Credential, ...]:
    """All credentials of one system user, ended or not."""
    return tuple(_credential_record(row) for row in _credentials_of_system_user.rows(connection, system_user_id))


def note_delivery(connection: Connection, server_id: int, revision: int, at: datetime) -> None:
    """A host obeys a revision: since now its keys up to that revision are delivered, unless they were already."""
    _note_delivery.run(connection, server_id, revision, at)


@prepared
def _note_delivery(server_id: int, revision: int, at: datetime) -> Update:
    # No seal is over this column (sealed.VOLATILE).
    held = credentials
    new = update(held).where(held.c.server_id == server_id, held.c.revision <= revision, held.c.delivered_at.is_(None))
    return new.values(delivered_at=at)


@prepared
def _ended_credentials(at: datetime, limit: int) -> Select[Any]:
    ended = credentials.c.expires_at
    return _credential.where(ended <= at).order_by(ended, credentials.c.id).limit(limit)


def ended_credentials(connection: Connection, at: datetime, limit: int) -> tuple[Credential, ...]:
    """Credentials whose end has come, at most `limit` of them, the earliest end first, as the index has them."""
    return tuple(_credential_record(row) for row in _ended_credentials.rows(connection, at, limit))


def restrict_credential(
    connection: Connection, credential_id: int, restrictions: Mapping[str, Any], revision: int
) -> None:
    """Let a credential do something else from a revision on, of which its host has said nothing yet."""
    values = {"restrictions": dict(restrictions), "revision": revision, "delivered_at": None}
    sealed.change(connection, credentials, sealed.row_of(credential_id), values=values)


def remove_credential(connection: Connection, credential_id: int) -> bool:
    """Delete a credential; False when it was gone already."""
    return sealed.remove(connection, credentials, sealed.row_of(credential_id)) == 1


def add_user_key(connection: Connection, values: Mapping[str, Any], ids: sealed_sets.Ids | None = None) -> UserKey:
    """Insert a user key (the columns of the table); answers it. ids: what was reserved for it."""
    return user_key_of(sealed_sets.insert_many(connection, user_keys, [values], ids)[0])


def claim_fingerprint(connection: Connection, fingerprint: str, *, kind: str, user_key_id: int | None) -> bool:
    """Make a key lead to one identity (kind "user" or "deploy"); False when it leads to one already."""
    return claiming_fingerprint(connection, fingerprint, kind=kind, user_key_id=user_key_id)()


def claiming_fingerprint(
    connection: Connection, fingerprint: str, *, kind: str, user_key_id: int | None
) -> Callable[[], bool]:
    """The same, to be asked for its answer after the next question, with which PostgreSQL tells it."""
    values = {"fingerprint": fingerprint, "kind": kind, "user_key_id": user_key_id}
    told = _claiming(connection.dialect.name).tell(connection, values)
    return lambda: bool(told.rows())


@cache
def _claiming(dialect: str) -> Statement:
    values = {column.name: placeholder(column) for column in key_owners.c}
    claimed = insert_of(dialect)(key_owners).values(values).on_conflict_do_nothing()
    return Statement(lambda: claimed.returning(key_owners.c.fingerprint))


@prepared
def _owner(fingerprint: str) -> Select[Any]:
    return select(key_owners).where(key_owners.c.fingerprint == fingerprint)


@prepared
def _user_key_by_id(key_id: int, user_id: int | None = None) -> Select[Any]:
    found = select(user_keys).where(user_keys.c.id == key_id)
    return found if user_id is None else found.where(user_keys.c.user_id == user_id)


def owner_of(connection: Connection, fingerprint: str) -> tuple[str, UserKey | None] | None:
    """To what a key leads: ("user", its user key) or ("deploy", None); None when to nothing."""
    row = _owner.row(connection, fingerprint)
    if row is None:
        return None
    key = None if row.user_key_id is None else _user_key_by_id.row(connection, row.user_key_id)
    return row.kind, None if key is None else user_key_of(key)


def get_user_key(connection: Connection, user_id: int, key_id: int) -> UserKey | None:
    """A key of this user, or None."""
    return _user_keys.one(connection, _user_key_by_id, key_id, user_id)


@paged
def _user_keys_of(user_id: int, sought: str | None) -> Select[Any]:
    found = select(user_keys).where(user_keys.c.user_id == user_id).order_by(user_keys.c.id.desc())
    return found if sought is None else found.where(matches(user_keys.c.title, sought))


def find_user_keys(
    connection: Connection,
    user_id: int,
    *,
    search: str = "",
    offset: int = 0,
    limit: int,
    after: Place | None = None,
) -> Page[UserKey]:
    """A page of a user's keys, newest first; search: part of the title, any case."""
    window = Window(limit, offset, after)
    return kept(
        connection,
        ("user keys", user_id, search, window),
        lambda: _user_keys_of.page(connection, _user_keys, window, user_id, pattern(search)),
    )


@paged
def _user_keys_of_workspace(workspace_id: int, user_id: int | None) -> Select[Any]:
    found = select(user_keys).where(user_keys.c.workspace_id == workspace_id).order_by(user_keys.c.id.desc())
    return found if user_id is None else found.where(user_keys.c.user_id == user_id)


def user_keys_of_workspace(
    connection: Connection, workspace_id: int, window: Window, *, user_id: int | None = None
) -> Page[UserKey]:
    """A page of the keys of a workspace's users, newest first; user_id: of this one alone."""
    return _user_keys_of_workspace.page(connection, user_key_of, window, workspace_id, user_id)


@paged
def _grants_of_workspace(workspace_id: int) -> Select[Any]:
    return select(grants).where(grants.c.workspace_id == workspace_id).order_by(grants.c.id)


@prepared
def _grants_like(
    workspace_id: int,
    system_user: str,
    user_id: int | None,
    group_id: int | None,
    server_id: int | None,
    tag: str | None,
    besides: int,
) -> Select[Any]:
    same = [grants.c.workspace_id == workspace_id, grants.c.system_user == system_user, grants.c.id != besides]
    for column, value in ((grants.c.user_id, user_id), (grants.c.group_id, group_id), (grants.c.server_id, server_id)):
        same.append(column.is_(None) if value is None else column == value)
    same.append(grants.c.tag.is_(None) if tag is None else grants.c.tag == tag)
    return select(grants).where(*same).order_by(grants.c.id).limit(MOST_ALIKE)


def grants_like(
    connection: Connection, workspace_id: int, system_user: str, place: GrantPlace, besides: int = 0
) -> tuple[Grant, ...]:
    """The grants for an account at a place that are as Keyrack wrote them, oldest first; besides: not the one with this
    id. place: user, group, server (ids) and tag, of which the last two are None for all servers.
    """
    rows = _grants_like.rows(connection, workspace_id, system_user, *place, besides)
    return tuple(grant_of(row) for row in rows if sealed.sound(connection, grants, row))


def page_of_grants(connection: Connection, workspace_id: int, window: Window) -> Page[Grant]:
    """A page of a workspace's grants, oldest first."""
    return _grants_of_workspace.page(connection, grant_of, window, workspace_id)


@prepared
def _count_user_keys(user_id: int) -> Select[Any]:
    return select(func.count()).select_from(user_keys).where(user_keys.c.user_id == user_id)


def count_user_keys(connection: Connection, user_id: int) -> int:
    """How many keys a user has."""
    return int(_count_user_keys.value(connection, user_id))


@prepared
def _keys_of_user(user_id: int) -> Select[Any]:
    return select(user_keys).where(user_keys.c.user_id == user_id, user_keys.c.public_key.is_not(None))


def keys_of_user(connection: Connection, user_id: int) -> tuple[UserKey, ...]:
    """All of a user's keys that hold a key."""
    return tuple(user_key_of(row) for row in _keys_of_user.rows(connection, user_id))


def remove_user_key(connection: Connection, key_id: int) -> None:
    """Delete a user key; its claim on the fingerprint goes with it."""
    sealed.remove(connection, user_keys, sealed.row_of(key_id))


def add_grant(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a grant (the columns of the table); answers its id."""
    return inserted(connection, grants, values)


@prepared
def _find_grants(workspace_id: int, grant_id: int | None = None) -> Select[Any]:
    found = select(grants).where(grants.c.workspace_id == workspace_id).order_by(grants.c.id)
    return found if grant_id is None else found.where(grants.c.id == grant_id)


def find_grants(connection: Connection, workspace_id: int) -> tuple[Grant, ...]:
    """All grants of a workspace, oldest first."""
    return tuple(grant_of(row) for row in _find_grants.rows(connection, workspace_id))


def get_grant(connection: Connection, workspace_id: int, grant_id: int) -> Grant | None:
    """A grant of this workspace, or None."""
    row = _find_grants.row(connection, workspace_id, grant_id)
    return None if row is None else grant_of(row)


@prepared
def _grants_to_begin(at: datetime, limit: int) -> Select[Any]:
    due = (grants.c.begun_at.is_(None), grants.c.starts_at.is_not(None), grants.c.starts_at <= at)
    return select(grants).where(*due).order_by(grants.c.starts_at).limit(limit)


def grants_to_begin(connection: Connection, at: datetime, limit: int) -> tuple[Grant, ...]:
    """Grants whose start came and of which hosts were not told yet, at most `limit`, the earliest first."""
    return tuple(grant_of(row) for row in _grants_to_begin.rows(connection, at, limit))


def note_begun(connection: Connection, grant_id: int, at: datetime) -> None:
    """Hosts were told that a grant began."""
    sealed.change(connection, grants, sealed.row_of(grant_id), values={"begun_at": at})


def change_grant(connection: Connection, grant_id: int, values: Mapping[str, Any]) -> None:
    """Give a grant other terms (columns of the table); of another end nobody was told yet."""
    told = {"noticed_at": None} if "expires_at" in values else {}
    sealed.change(connection, grants, sealed.row_of(grant_id), values={**values, **told})


def remove_grant(connection: Connection, grant_id: int) -> None:
    """Delete a grant."""
    sealed.remove(connection, grants, sealed.row_of(grant_id))


@prepared
def _grants_of_group(group_id: int) -> Select[Any]:
    return select(grants).where(grants.c.group_id == group_id).order_by(grants.c.id)


def grants_of_group(connection: Connection, group_id: int) -> tuple[Grant, ...]:
    """The grants of one group, ended or not."""
    return tuple(grant_of(row) for row in _grants_of_group.rows(connection, group_id))


@prepared
def _grants_in_force(user_id: int, at: datetime) -> Select[Any]:
    return select(grants).where(_grants_of_user(user_id), in_force(grants.c.expires_at, at)).order_by(grants.c.id)


def grants_of_user(connection: Connection, user_id: int, at: datetime) -> tuple[Grant, ...]:
    """The grants that let a user in, by name or by group, now or from a start to come on; none that ended."""
    return tuple(grant_of(row) for row in _grants_in_force.rows(connection, user_id, at))


def servers_of_grant(connection: Connection, grant: Grant) -> frozenset[int]:
    """The ids of the servers that a grant opens, or will."""
    if grant.server_id is not None:
        return frozenset((grant.server_id,))
    if grant.all_servers:
        return frozenset(_servers_of_workspace.values(connection, grant.workspace_id))
    return frozenset(_servers_with_tag.values(connection, grant.workspace_id, grant.tag or ""))


@prepared
def _servers_of_workspace(workspace_id: int) -> Select[Any]:
    return select(servers.c.id).where(servers.c.workspace_id == workspace_id)


@prepared
def _servers_with_tag(workspace_id: int, tag: str) -> Select[Any]:
    return (
        select(server_tags.c.server_id)
        .join(servers, servers.c.id == server_tags.c.server_id)
        .where(server_tags.c.tag == tag, servers.c.workspace_id == workspace_id)
    )


def servers_of_user(connection: Connection, user_id: int) -> frozenset[int]:
    """The ids of the servers on which a user's keys stand, by whichever grant."""
    return frozenset(_servers_of_user.values(connection, user_id))


@prepared
def _servers_of_user(user_id: int) -> CompoundSelect[Any]:
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
    everywhere = (
        select(servers.c.id)
        .join(grants, grants.c.workspace_id == servers.c.workspace_id)
        .where(mine, grants.c.all_servers.is_(True))
    )
    return union(direct, tagged, everywhere)


def applies(server_id: int, workspace_id: int, at: datetime) -> ColumnElement[bool]:
    """A condition: a grant has begun, has not ended and opens a server."""
    tags = select(server_tags.c.tag).where(server_tags.c.server_id == server_id)
    return and_(
        grants.c.workspace_id == workspace_id,
        or_(grants.c.server_id == server_id, grants.c.tag.in_(tags), grants.c.all_servers.is_(True)),
        begun(at),
        in_force(grants.c.expires_at, at),
    )


def sealed_credentials(
    connection: Connection, server_id: int, at: datetime, fingerprints: Sequence[str] | None = None
) -> tuple[tuple[Credential, bool], ...]:
    """The credentials of a server that are in force, each with whether its row and that of its system user are as
    Keyrack wrote them; fingerprints: those of these keys alone. Since when hosts have them is left out.
    """
    if fingerprints is None:
        plan, rows = _credentials_in_force.raw(connection, server_id, at)
    else:
        plan, rows = _credentials_of_server.raw(connection, server_id, None, at, fingerprints)
    return _with_seals(connection, server_id, plan, rows)


@per_server
def _credentials_in_force(server_ids: Sequence[int], at: datetime) -> Select[Any]:
    found = _to_check.where(among(credentials.c.server_id, server_ids)).order_by(credentials.c.id)
    return found.where(in_force(credentials.c.expires_at, at))


def credentials_with_seals(
    connection: Connection, server_id: int, *, label: str | None = None
) -> tuple[tuple[Credential, bool], ...]:
    """The credentials of a server, ended or not, or the one with a label, each with whether it holds; as above."""
    return _with_seals(connection, server_id, *_credentials_of_server.raw(connection, server_id, label, None, None))


@prepared
def _credentials_of_server(
    server_id: int, label: str | None, at: datetime | None, fingerprints: Sequence[str] | None
) -> Select[Any]:
    found = _to_check.where(credentials.c.server_id == server_id).order_by(credentials.c.id)
    if fingerprints is not None:
        found = found.where(among(credentials.c.fingerprint, fingerprints))
    if label is not None:
        found = found.where(credentials.c.label == label)
    return found if at is None else found.where(in_force(credentials.c.expires_at, at))


@per_server
def _system_users_of(server_ids: Sequence[int]) -> Select[Any]:
    return select(system_users).where(among(system_users.c.server_id, server_ids))


def _with_seals(
    connection: Connection, server_id: int, plan: CompiledStatement, rows: list[tuple[Any, ...]]
) -> tuple[tuple[Credential, bool], ...]:
    accounts = {
        row.id: sealed.sound(connection, system_users, row) for row in _system_users_of.rows(connection, server_id)
    }
    # Whether a host was told follows from its server's row: it would change for all of them with each word of the host.
    assert plan.names[-1] == _DELIVERED
    reads = tuple(read for read in plan.reads if read[0] != _DELIVERED)
    apart = replace(plan, names=plan.names[:-1], reads=reads)
    checked = _checked_credentials.of(connection, apart, [values[:-1] for values in rows])
    return tuple(
        (
            credential if values[-1] else replace(credential, delivered=False),
            holds and accounts.get(credential.system_user_id, False),
        )
        for (credential, holds), values in zip(checked, rows, strict=True)
    )


def user_key_holds(connection: Connection, workspace_id: int, key_id: int) -> bool | None:
    """Whether a user key of a workspace is as Keyrack wrote it; None where there is none."""
    row = _user_key_by_id.row(connection, key_id)
    if row is None or row.workspace_id != workspace_id:
        return None
    return sealed.holds(connection, user_keys, row)


def sound_grants(connection: Connection, workspace_id: int) -> tuple[Grant, ...]:
    """The grants of a workspace that are as Keyrack wrote them."""
    rows = _find_grants.rows(connection, workspace_id)
    return tuple(grant_of(row) for row in rows if sealed.holds(connection, grants, row))


def grant_of(row: Any) -> Grant:
    """A grant from its row."""
    return Grant(**sealed.unsealed(row))


def _grants_of_user(user_id: int) -> ColumnElement[bool]:
    member_of = select(group_members.c.group_id).where(group_members.c.user_id == user_id)
    return or_(grants.c.user_id == user_id, grants.c.group_id.in_(member_of))


def user_key_of(row: Any) -> UserKey:
    """A user key from its row."""
    return UserKey(**sealed.unsealed(row))


def _credential_record(row: Row) -> Credential:
    return Credential(**sealed.unsealed(row))


credential_records = Records(lambda connection, row: _credential_record(row))
# For documents: that of a large host is made anew for each of its keys that changes.
_checked_credentials = Records(
    lambda connection, row: (
        _credential_record(Row({**row, _DELIVERED: True})),
        sealed.holds(connection, credentials, row),
    ),
    keep=lambda checked: checked[1],
    most=MOST_CHECKED,
)
_user_keys = Records(lambda connection, row: user_key_of(row))
