"""Questions about keys that hosts must refuse, and about where one key stands; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, Update, and_, exists, func, or_, select, update

from keyrack.store.chunks import chunks
from keyrack.store.engine.prepared import among, prepared
from keyrack.store.hosts import applied as applied_revisions
from keyrack.store.hosts.applied import Applied
from keyrack.store.per_server import per_server
from keyrack.store.sealing import receipts, sealed, sealed_sets
from keyrack.store.sealing.sums import BATCH_SIZE
from keyrack.store.tables import (
    credentials,
    deleted_server_keys,
    deleted_servers,
    revocations,
    servers,
    unmanaged_keys,
    user_keys,
)
from keyrack.store.tables.columns import as_text

# By the id of a row that holds a key: the id of its server or user, and the key's line.
Places = Mapping[int, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key that a host must refuse. revision: the server's that says so; acknowledged_at: when the host first said
    that it does, None before; two_machines, has_host: as in Applied.
    """

    server_id: int
    server_name: str
    fingerprint: str
    revoked_at: datetime
    revision: int
    applied_revision: int
    acknowledged_at: datetime | None
    two_machines: bool = False
    has_host: bool = True


def add(connection: Connection, server_id: int, fingerprint: str, public_key: str, at: datetime, revision: int) -> None:
    """Make a host refuse a key, whatever else lets it in there; revision: the server's that says so."""
    add_many(connection, ((server_id, fingerprint, public_key),), {server_id: revision}, at)


def add_many(
    connection: Connection, entries: Iterable[tuple[int, str, str]], revisions: Mapping[int, int], at: datetime
) -> list[tuple[int, str]]:
    """Make hosts refuse keys, whatever else lets them in there; what a host is to refuse already stays as it is.
    Answers server id and fingerprint of the new ones.

    entries: server id, fingerprint and the key's line; revisions: by server id the revision that says so.
    """
    added: list[tuple[int, str]] = []
    for some in chunks(entries, BATCH_SIZE):
        known = _known.rows(connection, sorted({one[0] for one in some}), sorted({one[1] for one in some}))
        held = {(row.server_id, row.fingerprint) for row in known}
        new = [entry for entry in some if entry[:2] not in held]
        rows = [
            {
                "server_id": server_id,
                "fingerprint": fingerprint,
                "public_key": line,
                "revoked_at": at,
                "revision": revisions[server_id],
            }
            for server_id, fingerprint, line in new
        ]
        sealed_sets.insert_many(connection, revocations, rows)
        added += [(server_id, fingerprint) for server_id, fingerprint, _ in new]
    return added


@prepared
def _known(server_ids: Iterable[int], fingerprints: Iterable[str]) -> Select[Any]:
    named = (among(revocations.c.server_id, server_ids), among(revocations.c.fingerprint, fingerprints))
    return select(revocations.c.server_id, revocations.c.fingerprint).where(*named)


def refused_keys(
    connection: Connection, server_id: int, *, unacknowledged: int, acknowledged: int
) -> tuple[tuple[str, str], ...]:
    """The keys that a host is told to refuse: fingerprint and public key of each, by fingerprint.

    unacknowledged: so many at most that it has not acknowledged, the oldest, and so many that it has acknowledged and
    still finds in files of its own; acknowledged: so many others, the newest.
    """
    public_keys: dict[str, str] = {}  # by fingerprint
    for rows in (
        _waiting.rows(connection, server_id, unacknowledged),
        _still_in_files.rows(connection, server_id, unacknowledged),
        _newest.rows(connection, server_id, acknowledged),
    ):
        for row in rows:
            # A row that others altered counts too, as it can only refuse; sound() notes it for an alarm.
            sealed.sound(connection, revocations, row)
            public_keys[as_text(row.fingerprint)] = as_text(row.public_key)
    return tuple(sorted(public_keys.items()))


@prepared
def _refused_among(server_id: int, fingerprints: Sequence[str]) -> Select[Any]:
    return select(revocations).where(
        revocations.c.server_id == server_id, among(revocations.c.fingerprint, fingerprints)
    )


def refused_keys_among(
    connection: Connection, server_id: int, fingerprints: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    """Fingerprint and public key of those of these keys that a host must refuse."""
    rows = _refused_among.rows(connection, server_id, fingerprints)
    for row in rows:
        sealed.sound(connection, revocations, row)
    return tuple((row.fingerprint, as_text(row.public_key)) for row in rows)


def _first(server_ids: Iterable[int], most: int, order: Sequence[Any], *which: ColumnElement[bool]) -> Select[Any]:
    """The first `most` revocations of each server in an order."""
    rows = revocations
    place = func.row_number().over(partition_by=rows.c.server_id, order_by=order).label("place")
    statement = select(rows, place).where(among(rows.c.server_id, server_ids), *which).subquery()
    return select(*(statement.c[column.name] for column in rows.c)).where(statement.c.place <= most)


@per_server
def _waiting(server_ids: Iterable[int], most: int) -> Select[Any]:
    rows = revocations
    return _first(server_ids, most, (rows.c.revision, rows.c.fingerprint), rows.c.acknowledged_at.is_(None))


@per_server
def _newest(server_ids: Iterable[int], most: int) -> Select[Any]:
    rows = revocations
    return _first(server_ids, most, (rows.c.revision.desc(), rows.c.fingerprint), rows.c.acknowledged_at.is_not(None))


@per_server
def _still_in_files(server_ids: Iterable[int], most: int) -> Select[Any]:
    rows, unmanaged = revocations, unmanaged_keys
    here = exists().where(
        unmanaged.c.server_id == rows.c.server_id,
        unmanaged.c.fingerprint == rows.c.fingerprint,
        unmanaged.c.state != "gone",
    )
    return _first(server_ids, most, (rows.c.fingerprint,), rows.c.acknowledged_at.is_not(None), here)


def acknowledge(connection: Connection, server_id: int, applied_revision: int, at: datetime, *, most: int) -> bool:
    """Note that a host obeys its revocations up to a revision; most: how many a document carries, the oldest first.

    True if more wait than that: the host has not been told of them.
    """
    beyond = _first_beyond.row(connection, server_id, applied_revision, most)
    until = (None, None) if beyond is None else (beyond.revision, beyond.fingerprint)
    bound = (applied_revision + 1, "") if beyond is None else (beyond.revision, beyond.fingerprint)
    code = receipts.acknowledged(connection, revocations, server_id, at, bound)
    _acknowledge.run(connection, server_id, applied_revision, at, code, *until)
    return beyond is not None


def _unacknowledged(server_id: int, applied_revision: int) -> ColumnElement[bool]:
    return and_(
        revocations.c.server_id == server_id,
        revocations.c.acknowledged_at.is_(None),
        revocations.c.revision <= applied_revision,
    )


@prepared
def _first_beyond(server_id: int, applied_revision: int, most: int) -> Select[Any]:
    waiting = select(revocations.c.revision, revocations.c.fingerprint).where(
        _unacknowledged(server_id, applied_revision)
    )
    return waiting.order_by(revocations.c.revision, revocations.c.fingerprint).offset(most).limit(1)


@prepared
def _acknowledge(
    server_id: int, applied_revision: int, at: datetime, code: bytes, revision: int | None, fingerprint: str | None
) -> Update:
    # No seal is over these columns (VOLATILE): one code for all rows says that Keyrack wrote them.
    new = (
        update(revocations).where(_unacknowledged(server_id, applied_revision)).values(acknowledged_at=at, receipt=code)
    )
    if revision is None:
        return new
    before = and_(revocations.c.revision == revision, revocations.c.fingerprint < fingerprint)
    return new.where(or_(revocations.c.revision < revision, before))


def keys_on(connection: Connection, server_id: int) -> tuple[str, ...]:
    """The public keys (type and base64) that a server's host must refuse."""
    return tuple(
        connection.execute(select(revocations.c.public_key).where(revocations.c.server_id == server_id)).scalars()
    )


def of_key(connection: Connection, workspace_id: int, fingerprint: str) -> tuple[Revocation, ...]:
    """Where in a workspace a key must be refused, by server name; deleted servers last."""
    statement = (
        select(revocations)
        .join(servers, servers.c.id == revocations.c.server_id)
        .where(servers.c.workspace_id == workspace_id, revocations.c.fingerprint == fingerprint)
        .order_by(servers.c.name, servers.c.id)
    )
    rows = [dict(row) for row in connection.execute(statement).mappings()]
    standing = applied_revisions.of(connection, [row["server_id"] for row in rows])
    pending = tuple(
        Revocation(
            server_id=row["server_id"],
            server_name=standing[row["server_id"]].server_name,
            fingerprint=fingerprint,
            revoked_at=row["revoked_at"],
            revision=row["revision"],
            applied_revision=standing[row["server_id"]].applied_revision,
            acknowledged_at=receipts.when(connection, revocations, row),
            two_machines=standing[row["server_id"]].two_machines,
            has_host=standing[row["server_id"]].has_host,
        )
        for row in rows
        if row["server_id"] in standing
    )
    gone = (
        select(deleted_servers)
        .join(deleted_server_keys, deleted_server_keys.c.server_id == deleted_servers.c.server_id)
        .where(deleted_servers.c.workspace_id == workspace_id, deleted_server_keys.c.fingerprint == fingerprint)
        .order_by(deleted_servers.c.name, deleted_servers.c.server_id)
    )
    return pending + tuple(
        Revocation(
            server_id=row.server_id,
            server_name=_name_of_deleted(row),
            fingerprint=fingerprint,
            revoked_at=row.deleted_at,
            revision=row.revision,
            applied_revision=_applied_by_deleted(row, at),
            acknowledged_at=at,
        )
        for row, at in _with_acknowledgements(connection, gone)
    )


def applied(connection: Connection, workspace_id: int, server_ids: Iterable[int]) -> tuple[Applied, ...]:
    """What the hosts of these servers of a workspace applied, by name; deleted servers, as long as kept, come last."""
    ids = sorted(server_ids)
    statement = (
        select(servers.c.id)
        .where(servers.c.workspace_id == workspace_id, servers.c.id.in_(ids))
        .order_by(servers.c.name, servers.c.id)
    )
    gone = (
        select(deleted_servers)
        .where(deleted_servers.c.workspace_id == workspace_id, deleted_servers.c.server_id.in_(ids))
        .order_by(deleted_servers.c.name, deleted_servers.c.server_id)
    )
    mine = list(connection.execute(statement).scalars())
    standing = applied_revisions.of(connection, mine)
    return (
        *(standing[number] for number in mine if number in standing),
        *(
            Applied(row.server_id, _name_of_deleted(row), _applied_by_deleted(row, at), at)
            for row, at in _with_acknowledgements(connection, gone)
        ),
    )


def _name_of_deleted(row: Row[Any]) -> str:
    return f"{row.name} (deleted)"


def _with_acknowledgements(connection: Connection, gone: Select[Any]) -> Iterator[tuple[Row[Any], datetime | None]]:
    """Rows of deleted servers, each with when its host acknowledged the deletion; None where others altered the row."""
    for row in connection.execute(gone):
        yield row, row.acknowledged_at if sealed.sound(connection, deleted_servers, row) else None


def _applied_by_deleted(row: Row[Any], at: datetime | None) -> int:
    """The revision that a deleted server's host obeys: the last one, or 0, as earlier ones are not kept."""
    return 0 if at is None else int(row.revision)


def credentials_of_key(connection: Connection, workspace_id: int, fingerprint: str) -> Places:
    """Where a key stands as a credential, ended or not: the credential's id to its server and the key's line."""
    statement = (
        select(credentials.c.id, credentials.c.server_id, credentials.c.public_key)
        .join(servers, servers.c.id == credentials.c.server_id)
        .where(servers.c.workspace_id == workspace_id, credentials.c.fingerprint == fingerprint)
        .order_by(credentials.c.id)
    )
    return {row.id: (row.server_id, row.public_key) for row in connection.execute(statement)}


def user_keys_of_key(connection: Connection, workspace_id: int, fingerprint: str) -> Places:
    """The user keys with a key: their ids to the user and the key's line."""
    statement = select(user_keys.c.id, user_keys.c.user_id, user_keys.c.public_key).where(
        user_keys.c.workspace_id == workspace_id, user_keys.c.fingerprint == fingerprint
    )
    return {row.id: (row.user_id, row.public_key) for row in connection.execute(statement.order_by(user_keys.c.id))}


def unmanaged_with_key(connection: Connection, workspace_id: int, fingerprint: str) -> Places:
    """Where hosts find a key in files of their own: the unmanaged key's id to its server and the key's line."""
    statement = (
        select(unmanaged_keys.c.id, unmanaged_keys.c.server_id, unmanaged_keys.c.public_key)
        .join(servers, servers.c.id == unmanaged_keys.c.server_id)
        .where(
            servers.c.workspace_id == workspace_id,
            unmanaged_keys.c.fingerprint == fingerprint,
            unmanaged_keys.c.kind == "key",
            unmanaged_keys.c.state != "gone",
        )
        .order_by(unmanaged_keys.c.id)
    )
    return {row.id: (row.server_id, row.public_key) for row in connection.execute(statement)}
