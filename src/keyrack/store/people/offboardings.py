"""Questions about offboardings: what a person has, what is deleted and kept, which hosts obey; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, func, or_, select, update

from keyrack.model import Page, Window
from keyrack.store.chunks import chunks
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.hosts import applied as applied_revisions
from keyrack.store.hosts import sessions as open_logins
from keyrack.store.hosts.applied import Applied
from keyrack.store.hosts.server_states import HAS_HOST
from keyrack.store.keys import key_sources as sources
from keyrack.store.keys import requests as asked
from keyrack.store.keys import revocations as revoked
from keyrack.store.keys.terms import token_in_force
from keyrack.store.rows import inserted, paged
from keyrack.store.sealing import receipts, sealed, sealed_sets, seals
from keyrack.store.sealing.sums import BATCH_SIZE
from keyrack.store.tables import (
    access_keys,
    credentials,
    deleted_server_keys,
    deleted_servers,
    deploy_keys,
    grants,
    group_members,
    groups,
    key_sources,
    offboarding_hosts,
    offboardings,
    repositories,
    repository_members,
    revocations,
    revoked_keys,
    servers,
    sessions,
    system_users,
    tokens,
    unmanaged_keys,
    user_keys,
)

KINDS = [
    "keys",
    "credentials",
    "grants",
    "groups",
    "repositories",
    "tokens",
    "access_keys",
    "sessions",
    "found",
    "key_sources",
    "requests",
    "servers",
]

_GONE = "gone_"
MAX_NAMED = 1000
"""How many values one statement lists at most."""


@dataclass(frozen=True, slots=True)
class Offboarding:
    """A person who was removed everywhere. gone: what was deleted, in names, by kind (KINDS); kept: by table the rows
    that undoing inserts again; sound: False if others altered the row: `gone` is empty then, and nothing may be undone.
    """

    id: int
    workspace_id: int
    user_id: int
    user_name: str
    asked_by: str
    reason: str
    at: datetime
    undo_until: datetime
    gone: Mapping[str, Any]
    kept: Mapping[str, Any]
    undone_at: datetime | None
    undone_by: str | None
    sound: bool = True


@dataclass(frozen=True, slots=True)
class HostReceipt:
    """One server of an offboarding. wanted: the revision that carries it; applied: the one that the host obeys;
    two_machines: whether two machines use the host's identity; has_host: whether the server has one.
    """

    server_id: int
    server_name: str
    wanted: int
    applied: int
    acknowledged_at: datetime | None
    two_machines: bool
    has_host: bool


@dataclass(frozen=True, slots=True)
class ReachedServer:
    """A server that a person reaches."""

    id: int
    name: str


# What somebody has


@prepared
def _keys(user_id: int) -> Select[Any]:
    return select(user_keys).where(user_keys.c.user_id == user_id).order_by(user_keys.c.id)


@prepared
def _credentials(workspace_id: int, fingerprints: Iterable[str]) -> Select[Any]:
    return (
        select(credentials, servers.c.name.label("server_name"), system_users.c.username)
        .join(servers, servers.c.id == credentials.c.server_id)
        .join(system_users, system_users.c.id == credentials.c.system_user_id)
        .where(servers.c.workspace_id == workspace_id, among(credentials.c.fingerprint, fingerprints))
        .order_by(credentials.c.id)
    )


@prepared
def _grants(user_id: int) -> Select[Any]:
    return (
        select(grants, servers.c.name.label("server_name"))
        .outerjoin(servers, servers.c.id == grants.c.server_id)
        .where(grants.c.user_id == user_id)
        .order_by(grants.c.id)
    )


@prepared
def _memberships(user_id: int) -> Select[Any]:
    return (
        select(group_members, groups.c.name)
        .join(groups, groups.c.id == group_members.c.group_id)
        .where(group_members.c.user_id == user_id)
        .order_by(groups.c.name)
    )


@prepared
def _repository_roles(user_id: int) -> Select[Any]:
    return (
        select(repository_members, repositories.c.path)
        .join(repositories, repositories.c.id == repository_members.c.repository_id)
        .where(repository_members.c.user_id == user_id)
        .order_by(repositories.c.path)
    )


@prepared
def _tokens(user_id: int, at: datetime) -> Select[Any]:
    mine = (tokens.c.user_id == user_id, token_in_force(at))
    return select(tokens.c.id, tokens.c.kind, tokens.c.name).where(*mine).order_by(tokens.c.id)


@prepared
def _access_keys(user_id: int) -> Select[Any]:
    return select(access_keys.c.id).where(access_keys.c.user_id == user_id).order_by(access_keys.c.id)


@prepared
def _sessions(workspace_id: int, fingerprints: Iterable[str]) -> Select[Any]:
    return (
        select(sessions, servers.c.name.label("server_name"))
        .join(servers, servers.c.id == sessions.c.server_id)
        .where(servers.c.workspace_id == workspace_id, among(sessions.c.fingerprint, fingerprints))
        .order_by(sessions.c.id)
    )


@prepared
def _unmanaged(workspace_id: int, fingerprints: Iterable[str]) -> Select[Any]:
    return (
        select(unmanaged_keys.c.server_id, unmanaged_keys.c.username, unmanaged_keys.c.path, unmanaged_keys.c.line)
        .add_columns(unmanaged_keys.c.fingerprint, servers.c.name.label("server_name"))
        .join(servers, servers.c.id == unmanaged_keys.c.server_id)
        .where(
            servers.c.workspace_id == workspace_id,
            among(unmanaged_keys.c.fingerprint, fingerprints),
            unmanaged_keys.c.kind == "key",
            unmanaged_keys.c.state != "gone",
        )
        .order_by(unmanaged_keys.c.id)
    )


@dataclass(frozen=True, slots=True)
class HeldAccess:
    """All that somebody has: rows of each kind, with the names of what they refer to; of tokens, access keys and
    unmanaged keys only the columns that are needed.
    """

    keys: Sequence[Row]
    credentials: Sequence[Row]
    grants: Sequence[Row]
    groups: Sequence[Row]
    repositories: Sequence[Row]
    tokens: Sequence[Row]
    access_keys: Sequence[Row]
    sessions: Sequence[Row]
    unmanaged_keys: Sequence[Row]
    key_sources: Sequence[Row]
    requests: Sequence[Row]


def held(connection: Connection, workspace_id: int, user_id: int, at: datetime) -> HeldAccess:
    """All that a user of a workspace has, by one question for each kind; tokens only if in force at `at`."""
    keys = _keys.rows(connection, user_id)
    fingerprints = [row.fingerprint for row in keys if row.fingerprint]
    return HeldAccess(
        keys=keys,
        credentials=_credentials.rows(connection, workspace_id, fingerprints),
        grants=_grants.rows(connection, user_id),
        groups=_memberships.rows(connection, user_id),
        repositories=_repository_roles.rows(connection, user_id),
        tokens=_tokens.rows(connection, user_id, at),
        access_keys=_access_keys.rows(connection, user_id),
        sessions=_sessions.rows(connection, workspace_id, fingerprints),
        unmanaged_keys=_unmanaged.rows(connection, workspace_id, fingerprints),
        key_sources=sources.rows_of_user(connection, user_id),
        requests=asked.pending_rows(connection, user_id),
    )


@prepared
def _places(workspace_id: int, ids: Iterable[int]) -> Select[Any]:
    return (
        select(servers.c.id, servers.c.name)
        .where(servers.c.workspace_id == workspace_id, among(servers.c.id, ids))
        .order_by(servers.c.name, servers.c.id)
    )


def places(connection: Connection, workspace_id: int, ids: Iterable[int]) -> tuple[ReachedServer, ...]:
    """Those servers of a workspace that have one of these ids, by name."""
    return tuple(ReachedServer(*row.values()) for row in _places.rows(connection, workspace_id, set(ids)))


@prepared
def _unacknowledged(workspace_id: int, fingerprints: Iterable[str]) -> Select[Any]:
    return (
        select(deleted_servers.c.server_id, deleted_servers.c.name, deleted_servers.c.revision)
        .join(deleted_server_keys, deleted_server_keys.c.server_id == deleted_servers.c.server_id)
        .where(
            deleted_servers.c.workspace_id == workspace_id,
            among(deleted_server_keys.c.fingerprint, fingerprints),
            deleted_servers.c.acknowledged_at.is_(None),
        )
        .distinct()
        .order_by(deleted_servers.c.name, deleted_servers.c.server_id)
    )


def unacknowledged(connection: Connection, workspace_id: int, fingerprints: Iterable[str]) -> tuple[Row, ...]:
    """Deleted servers whose hosts have not said yet that they refuse these keys: server_id, name, revision."""
    return tuple(_unacknowledged.rows(connection, workspace_id, list(fingerprints)))


@prepared
def _still_to_refuse(workspace_id: int, fingerprints: Iterable[str]) -> Select[Any]:
    return (
        select(revocations)
        .join(servers, servers.c.id == revocations.c.server_id)
        .where(
            servers.c.workspace_id == workspace_id,
            among(revocations.c.fingerprint, fingerprints),
        )
    )


def still_to_refuse(connection: Connection, workspace_id: int, fingerprints: Iterable[str]) -> frozenset[int]:
    """The ids of servers whose hosts are to refuse one of these keys and have not said yet that they do."""
    rows = _still_to_refuse.rows(connection, workspace_id, list(fingerprints))
    return frozenset(row.server_id for row in rows if receipts.when(connection, revocations, row) is None)


@prepared
def _deploy_keys_made(user_id: int) -> Select[Any]:
    return select(func.count()).select_from(deploy_keys).where(deploy_keys.c.created_by == user_id)


@prepared
def _credentials_made(user_id: int) -> Select[Any]:
    return select(func.count()).select_from(credentials).where(credentials.c.created_by == user_id)


def made(connection: Connection, user_id: int) -> tuple[int, int]:
    """How many deploy keys and how many credentials a user added, for whomever."""
    return int(_deploy_keys_made.value(connection, user_id)), int(_credentials_made.value(connection, user_id))


# What goes, and what comes back


def remove_all(
    connection: Connection, workspace_id: int, user_id: int, fingerprints: Sequence[str], *, at: datetime, by: str
) -> None:
    """Delete a user's keys, grants, memberships, access keys and key sources, and credentials with one of the keys;
    cancel requests that are pending; ask for the end of the sessions that a key opened. A statement for each kind.
    """
    mine = select(servers.c.id).where(servers.c.workspace_id == workspace_id)
    if fingerprints:
        of_keys = (credentials.c.fingerprint.in_(fingerprints), credentials.c.server_id.in_(mine))
        sealed.remove(connection, credentials, *of_keys)
        opened = (sessions.c.fingerprint.in_(fingerprints), sessions.c.server_id.in_(mine))
        open_logins.ask_end_of(connection, *opened)
    for table in (grants, group_members, repository_members, access_keys, user_keys, key_sources):
        sealed.remove(connection, table, table.c.user_id == user_id)
    asked.cancel_pending(connection, user_id, at, by)


def refuse(
    connection: Connection, revisions: Mapping[int, int], lines: Mapping[str, str], at: datetime
) -> frozenset[int]:
    """Make each of some hosts refuse all of some keys; answers the ids of servers for which that is new for any key.

    revisions: by server id the revision that says so; lines: the keys' lines by fingerprint.
    """
    entries = ((server_id, key, lines[key]) for server_id in sorted(revisions) for key in sorted(lines))
    return frozenset(server_id for server_id, _ in revoked.add_many(connection, entries, revisions, at))


def accept(connection: Connection, server_ids: Sequence[int], fingerprints: Sequence[str]) -> None:
    """Let hosts take keys again, of which none may be revoked everywhere."""
    for some in chunks(server_ids, MAX_NAMED):
        which = (revocations.c.server_id.in_(some), revocations.c.fingerprint.in_(fingerprints))
        sealed.remove(connection, revocations, *which)


@prepared
def _everywhere(workspace_id: int, fingerprints: Iterable[str]) -> Select[Any]:
    return select(revoked_keys.c.fingerprint).where(
        revoked_keys.c.workspace_id == workspace_id, among(revoked_keys.c.fingerprint, fingerprints)
    )


def revoked_everywhere(connection: Connection, workspace_id: int, fingerprints: Iterable[str]) -> frozenset[str]:
    """Those of these keys that are revoked everywhere in a workspace, so that nobody may register them."""
    return frozenset(_everywhere.values(connection, workspace_id, list(fingerprints)))


def present(connection: Connection, table: Table, column: str, values: Iterable[Any]) -> frozenset[Any]:
    """Those of these values that a row of a table has in a column, such as ids of servers that are still there."""
    existing: set[Any] = set()
    for some in chunks(sorted(set(values)), MAX_NAMED):
        question = select(table.c[column]).where(table.c[column].in_(some))
        existing |= set(connection.execute(question).scalars())
    return frozenset(existing)


@prepared
def _labels(server_ids: Iterable[int]) -> Select[Any]:
    return select(credentials.c.server_id, credentials.c.label).where(among(credentials.c.server_id, server_ids))


def labels(connection: Connection, server_ids: Iterable[int]) -> frozenset[tuple[int, str]]:
    """The labels of credentials that servers have, as pairs of server id and label."""
    return frozenset((row.server_id, row.label) for row in _labels.rows(connection, set(server_ids)))


def memberships(connection: Connection, table: Table, column: str, user_id: int) -> frozenset[int]:
    """The ids of the groups or repositories of which a user is a member now; table: group_members or
    repository_members; column: its column with those ids.
    """
    mine = select(table.c[column]).where(table.c.user_id == user_id)
    return frozenset(connection.execute(mine).scalars())


def put_back(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows again, with the ids that they had."""
    sealed.insert_rows(connection, table, rows)


# The offboarding itself, and who obeys


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert an offboarding (the columns of the table); answers its id."""
    return inserted(connection, offboardings, values)


def add_hosts(connection: Connection, offboarding_id: int, hosts: Iterable[tuple[int, str, int]]) -> None:
    """Note which hosts must acknowledge an offboarding: server id, name and revision of each."""
    rows = [
        {"offboarding_id": offboarding_id, "server_id": server_id, "name": name, "revision": revision}
        for server_id, name, revision in hosts
    ]
    for some in chunks(rows, BATCH_SIZE):
        sealed_sets.insert_many(connection, offboarding_hosts, some)


def mark_undone(connection: Connection, offboarding_id: int, *, at: datetime, by: str) -> None:
    """Note that an offboarding was undone."""
    values = {"undone_at": at, "undone_by": by}
    sealed.change(connection, offboardings, sealed.row_of(offboarding_id), values=values)


@prepared
def _one(workspace_id: int, offboarding_id: int) -> Select[Any]:
    return select(offboardings).where(offboardings.c.id == offboarding_id, offboardings.c.workspace_id == workspace_id)


def get(connection: Connection, workspace_id: int, offboarding_id: int) -> Offboarding | None:
    """An offboarding of this workspace, or None."""
    row = _one.row(connection, workspace_id, offboarding_id)
    return None if row is None else _record(connection, row)


@prepared
def _latest(user_id: int) -> Select[Any]:
    mine = select(offboardings).where(offboardings.c.user_id == user_id)
    return mine.order_by(offboardings.c.id.desc()).limit(1)


def latest_of(connection: Connection, user_id: int) -> Offboarding | None:
    """The last offboarding of a user, undone or not, or None."""
    row = _latest.row(connection, user_id)
    return None if row is None else _record(connection, row)


@paged
def _of_workspace(workspace_id: int) -> Select[Any]:
    return select(offboardings).where(offboardings.c.workspace_id == workspace_id).order_by(offboardings.c.id.desc())


def find(connection: Connection, workspace_id: int, window: Window) -> Page[Offboarding]:
    """A page of a workspace's offboardings, newest first."""
    return _of_workspace.page(connection, lambda row: _record(connection, row), window, workspace_id)


@prepared
def _hosts(ids: Iterable[int]) -> Select[Any]:
    return (
        select(offboarding_hosts, *seals.columns(deleted_servers, _GONE))
        .outerjoin(deleted_servers, deleted_servers.c.server_id == offboarding_hosts.c.server_id)
        .where(among(offboarding_hosts.c.offboarding_id, ids))
        .order_by(offboarding_hosts.c.name, offboarding_hosts.c.server_id)
    )


def hosts(connection: Connection, ids: Iterable[int]) -> dict[int, list[HostReceipt]]:
    """The receipts of the servers of some offboardings, by the offboarding's id."""
    by_offboarding: dict[int, list[HostReceipt]] = {}
    rows = _hosts.rows(connection, list(ids))
    standing = applied_revisions.of(connection, {row.server_id for row in rows})
    for row in rows:
        by_offboarding.setdefault(row.offboarding_id, []).append(_receipt(connection, row, standing.get(row.server_id)))
    return by_offboarding


def _receipt(connection: Connection, row: Row, server: Applied | None) -> HostReceipt:
    """The receipt of one server, without an acknowledgement that others wrote; server: None if deleted since."""
    at = receipts.when(connection, offboarding_hosts, row)
    if server is not None:
        number = (row.server_id, row.name, int(row.revision))
        return HostReceipt(*number, server.applied_revision, at, server.two_machines, server.has_host)
    # Of a deleted server, only the last document counts, whose revision is above all others.
    is_noted = row[f"{_GONE}server_id"] is not None
    obeys = is_noted and sealed.sound(connection, deleted_servers, row, _GONE)
    last = row[f"{_GONE}acknowledged_at"] if obeys else None
    applied = row[f"{_GONE}revision"] if last is not None else row.revision if at is not None else 0
    at = last if at is None else at
    host = at is not None or is_noted
    return HostReceipt(row.server_id, f"{row.name} (deleted)", int(row.revision), int(applied), at, False, host)


def acknowledge(connection: Connection, server_id: int, applied: int, at: datetime) -> list[int]:
    """Note that a host obeys a revision, in the offboardings that wait for its acknowledgement; answers their ids."""
    if _waits.row(connection, server_id, applied) is None:
        return []
    code = receipts.acknowledged(connection, offboarding_hosts, server_id, at, (applied + 1, ""))
    done = (
        update(offboarding_hosts)
        .where(*_waiting(server_id, applied))
        .values(acknowledged_at=at, receipt=code)
        .returning(offboarding_hosts.c.offboarding_id)
    )
    return list(connection.execute(done).scalars())


def _waiting(server_id: int, applied: int) -> tuple[ColumnElement[bool], ...]:
    mine = offboarding_hosts.c
    return mine.server_id == server_id, mine.acknowledged_at.is_(None), mine.revision <= applied


@prepared
def _waits(server_id: int, applied: int) -> Select[Any]:
    return select(offboarding_hosts.c.offboarding_id).where(*_waiting(server_id, applied)).limit(1)


@prepared
def _left(offboarding_id: int) -> Select[Any]:
    waiting = select(offboarding_hosts.c.server_id).where(
        offboarding_hosts.c.offboarding_id == offboarding_id, offboarding_hosts.c.acknowledged_at.is_(None)
    )
    waiting = waiting.outerjoin(servers, servers.c.id == offboarding_hosts.c.server_id)
    # Of a deleted server there is a row only if it had a host.
    waiting = waiting.outerjoin(deleted_servers, deleted_servers.c.server_id == offboarding_hosts.c.server_id)
    return waiting.where(or_(HAS_HOST, deleted_servers.c.server_id.is_not(None))).limit(1)


def is_waited_for(connection: Connection, offboarding_id: int) -> bool:
    """Whether the acknowledgement of any host is still waited for."""
    # The first question is quick and trusts what may have been written by others; before the answer is no, all
    # receipts are checked.
    if _left.row(connection, offboarding_id) is not None:
        return True
    waiting_hosts = hosts(connection, (offboarding_id,)).get(offboarding_id, ())
    return any(one.has_host and one.acknowledged_at is None for one in waiting_hosts)


def _record(connection: Connection, row: Row) -> Offboarding:
    sound = sealed.sound(connection, offboardings, row)
    values = seals.unsealed(row)
    if not sound:  # others may have written anything there, and readers rely on each kind
        values["gone"] = {kind: [] for kind in KINDS} | {"iam_tokens": 0}
    return Offboarding(**values, sound=sound)
