"""Prepares a copy of an older database to replace a newer one: access that was taken away since stays away, and every
host is asked what it obeyed; must give no access that was refused since, unless an operator says so.
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

NOUNS = {
    "users": ("user", "users"),
    "credentials": ("key on a server", "keys on servers"),
    "grants": ("grant", "grants"),
    "user_keys": ("user's key", "users' keys"),
    "deploy_keys": ("deploy key", "deploy keys"),
    "tokens": ("token", "tokens"),
    "access_keys": ("access key", "access keys"),
    "repository_members": ("member of a repository", "members of repositories"),
    "group_members": ("member of a group", "members of groups"),
    "server_tags": ("tag of a server", "tags of servers"),
    "key_sources": ("key source", "key sources"),
    "servers": ("server", "servers"),
    "repositories": ("repository", "repositories"),
}
"""What a row of a table is called, one and many."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What a restore loses.

    made_at: time of the backup's last event; lost: events since, None where unknown; gone, added: rows deleted and
    added since, by table; hosts: names of servers that were enrolled since, whose hosts are unknown after the restore.
    """

    made_at: datetime | None
    lost: int | None
    gone: dict[str, int]
    added: dict[str, int]
    hosts: tuple[str, ...] = ()


def listed(rows: dict[str, int]) -> str:
    """The counts of rows in words, such as "2 users, 1 grant"; "" for none. rows: counts by table."""
    return ", ".join(f"{number} {NOUNS[name][number != 1]}" for name, number in rows.items())


def compare(instance: Instance, newer: Newer | None) -> Loss:
    """What the newer database has and lacks against the opened one, an older copy.

    newer: the database to be replaced, None where there is none; one without this one's last event counts as none.
    """
    last = instance.database.read(_last_event)
    if last is None or newer is None or not newer.has_event(*last):
        return Loss(None if last is None else _moment(last[1]), None, {}, {})

    def read(connection: Connection) -> Loss:
        deleted = {name: len(_gone(connection, newer, name)) for name in OPENING}
        added = {}
        for name in ("credentials", "user_keys", "grants", "servers", "users", "repositories"):
            highest = connection.execute(select(func.max(metadata.tables[name].c.id))).scalar() or 0
            added[name] = newer.count_after(name, highest)
        lost = newer.count_after("events", last[0])
        return Loss(_moment(last[1]), lost, _some(deleted), _some(added), _enrolled_since(connection, newer))

    return instance.database.read(read)


def ready(instance: Instance, newer: Newer | None, loss: Loss, *, keep_gone: bool = True) -> None:
    """Make the opened database the one to serve: without the access that was taken away since, and with every host
    counted as diverged until it has reported what it obeyed. keep_gone: False keeps all access of the copy.
    """
    attempt = Attempt(
        instance, system_actor(channel="cli"), "servers:write", "restore a database", target_kind="database"
    )

    def change(work: Work) -> None:
        if newer is not None and loss.lost is not None and keep_gone:
            _remove_gone(work.connection, newer)
        diverged = {ROLLED_BACK_AT: work.now, "compared_at": None, REPORTED_LINEAGE: ""}
        sealed.change(work.connection, servers, servers.c.enrolled_at.is_not(None), values=diverged)
        deleted = listed(loss.gone) or "nothing"
        since = "" if loss.made_at is None else f" of {loss.made_at:%Y-%m-%d %H:%M:%S} UTC"
        stays_away = f"; what was taken away since stays so: {deleted}" if keep_gone and loss.lost is not None else ""
        lost = (
            "" if loss.lost is None else f"; {count(loss.lost, 'event')} since {'is' if loss.lost == 1 else 'are'} lost"
        )
        for workspace in workspace_rows.workspaces_by_name(work.connection):
            work.record(
                f"Restored the database from a backup{since}{lost}{stays_away}",
                workspace_id=workspace.id,
                level="alarm",
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
    # A deploy key owns its fingerprint as long as one row has it.
    left = select(deploy_keys.c.fingerprint)
    connection.execute(delete(key_owners).where(key_owners.c.kind == "deploy", key_owners.c.fingerprint.not_in(left)))
    for name, columns in NARROWED.items():
        table = metadata.tables[name]
        for raw in newer.rows(name):
            last = sealed_tables.typed(table, raw)
            # Rows that were changed past Keyrack in the newer database must not get a seal here.
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


def _enrolled_since(connection: Connection, newer: Newer) -> tuple[str, ...]:
    """Servers of the newer database whose host shows a secret that is not known here, also where another had one."""
    known = set(connection.execute(select(servers.c.agent_secret_hash)).scalars())
    rows = newer.names("servers", ("id", "name", "agent_secret_hash"))
    return tuple(sorted(str(name) for _, name, secret in rows if secret is not None and secret not in known))


def _gone(connection: Connection, newer: Newer, name: str) -> list[tuple[object, ...]]:
    """The rows of a table that the newer database no longer has, by the columns that name a row."""
    table = metadata.tables[name]
    newer_rows = newer.names(name, OPENING[name])
    own_rows = connection.execute(select(*(table.c[column] for column in OPENING[name])))
    return [tuple(row) for row in own_rows if tuple(row) not in newer_rows]


def _last_event(connection: Connection) -> tuple[int, int, str] | None:
    row = connection.execute(text("SELECT id, at, summary FROM events ORDER BY id DESC LIMIT 1")).one_or_none()
    return None if row is None else (row[0], row[1], row[2])


def _moment(at: int) -> datetime:
    return EPOCH + at * MICROSECOND


def _some(counts: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
