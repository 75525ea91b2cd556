"""Readies a copy of an older database to take the place of a newer one: what was taken away since stays away, and
every host is asked what it obeyed; must let nothing in that was refused since, unless somebody says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, delete, func, select, text

from keyrack.core.instance import Instance
from keyrack.core.people.actors import system_actor
from keyrack.core.work import Attempt, Work
from keyrack.protocol.words import count
from keyrack.store.audit import audit_log
from keyrack.store.engine.backup import NARROWED, OPENING, REFUSING, Newer
from keyrack.store.people import workspaces as workspace_rows
from keyrack.store.sealing import sealed, sealed_tables
from keyrack.store.sealing.seals import seals_of
from keyrack.store.tables import deploy_keys, key_owners, metadata, servers
from keyrack.store.tables.columns import EPOCH, MICROSECOND
from keyrack.store.tables.hosts import REPORTED_LINEAGE, ROLLED_BACK_AT

WORDS = {
    "users": "users",
    "credentials": "keys on servers",
    "grants": "grants",
    "user_keys": "users' keys",
    "deploy_keys": "deploy keys",
    "tokens": "tokens",
    "access_keys": "access keys",
    "repository_members": "members of repositories",
    "group_members": "members of groups",
    "server_tags": "tags of servers",
    "key_sources": "key sources",
}


@dataclass(frozen=True, slots=True)
class Loss:
    """What a restore means. made_at: of the backup's last event; lost: events since, None where nobody knows;
    gone: by table, how many rows were deleted since; added: by table, how many were added since.
    """

    made_at: datetime | None
    lost: int | None
    gone: dict[str, int]
    added: dict[str, int]


def compare(instance: Instance, newer: Newer | None) -> Loss:
    """What is lost and what was taken away since the database that instance has opened was copied.

    newer: the database to be replaced, None where it is not there; one that does not go on from this one counts as
    not there.
    """
    last = instance.database.read(_last_event)
    if last is None or newer is None or not newer.has_event(*last):
        return Loss(None if last is None else _moment(last[1]), None, {}, {})

    def read(connection: Connection) -> Loss:
        gone = {name: len(_gone(connection, newer, name)) for name in OPENING}
        added = {}
        for name in ("credentials", "user_keys", "grants", "servers", "users", "repositories"):
            highest = connection.execute(select(func.max(metadata.tables[name].c.id))).scalar() or 0
            added[name] = newer.count_after(name, highest)
        lost = newer.count_after("events", last[0])
        return Loss(_moment(last[1]), lost, _some(gone), _some(added))

    return instance.database.read(read)


def ready(instance: Instance, newer: Newer | None, loss: Loss, *, keep_gone: bool = True) -> None:
    """Make the opened database what is to be served: without what was taken away since, and with every host taken for
    diverged until it has told what it obeyed. keep_gone: False brings everything back.
    """
    attempt = Attempt(
        instance, system_actor(channel="cli"), "servers:write", "restore a database", target_kind="database"
    )

    def change(work: Work) -> None:
        if newer is not None and loss.lost is not None and keep_gone:
            _remove_gone(work.connection, newer)
        diverged = {ROLLED_BACK_AT: work.now, "compared_at": None, REPORTED_LINEAGE: ""}
        sealed.change(work.connection, servers, servers.c.enrolled_at.is_not(None), values=diverged)
        said = ", ".join(f"{count} {WORDS[name]}" for name, count in loss.gone.items()) or "nothing"
        since = "" if loss.made_at is None else f" of {loss.made_at:%Y-%m-%d %H:%M:%S} UTC"
        kept = f"; what was taken away since stays so: {said}" if keep_gone and loss.lost is not None else ""
        lost = (
            "" if loss.lost is None else f"; {count(loss.lost, 'event')} since {'is' if loss.lost == 1 else 'are'} lost"
        )
        for workspace in workspace_rows.workspaces_by_name(work.connection):
            work.record(
                f"Restored the database from a backup{since}{lost}{kept}", workspace_id=workspace.id, level="alarm"
            )
        audit_log.forget(work.connection)
        work.no_event("there may be no workspace to tell")

    with attempt:
        attempt.write(change)


def _remove_gone(connection: Connection, newer: Newer) -> None:
    for name in OPENING:
        table = metadata.tables[name]
        for row in _gone(connection, newer, name):
            named = [table.c[column] == value for column, value in zip(OPENING[name], row, strict=True)]
            sealed.remove(connection, table, and_(*named))
    # The claim of a deploy key on its fingerprint ends with its last row.
    left = select(deploy_keys.c.fingerprint)
    connection.execute(delete(key_owners).where(key_owners.c.kind == "deploy", key_owners.c.fingerprint.not_in(left)))
    for name, columns in NARROWED.items():
        table = metadata.tables[name]
        for raw in newer.rows(name):
            last = sealed_tables.typed(table, raw)
            # What somebody wrote into the database that is replaced, past Keyrack, must not be sealed here.
            if seals_of(connection).holds(table, last):
                values = {column: last[column] for column in columns}
                sealed.change(connection, table, table.c.id == last["id"], values=values)
    known = set(connection.execute(select(servers.c.id)).scalars())
    workspaces = {workspace.id for workspace in workspace_rows.workspaces_by_name(connection)}
    for name in REFUSING:
        for refused in newer.rows(name):
            if refused.get("server_id") in known or refused.get("workspace_id") in workspaces:
                table = metadata.tables[name]
                sealed.copy_new(connection, table, sealed_tables.typed(table, refused))


def _gone(connection: Connection, newer: Newer, name: str) -> list[tuple[object, ...]]:
    """The rows of an opening table that the newer database has no more, by the columns that name a row."""
    table = metadata.tables[name]
    there = newer.names(name, OPENING[name])
    mine = connection.execute(select(*(table.c[column] for column in OPENING[name])))
    return [tuple(row) for row in mine if tuple(row) not in there]


def _last_event(connection: Connection) -> tuple[int, int, str] | None:
    found = connection.execute(text("SELECT id, at, summary FROM events ORDER BY id DESC LIMIT 1")).one_or_none()
    return None if found is None else (found[0], found[1], found[2])


def _moment(at: int) -> datetime:
    return EPOCH + at * MICROSECOND


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
