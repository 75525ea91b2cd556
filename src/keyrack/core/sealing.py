"""Seals an instance's rows, once those of a database from before there were seals, and names those that do not hold;
must never seal by itself what the key's own mark says is sealed already.

The mark lies beside the instance key, where whoever can write to the database alone does not come: emptying the
seals, or what the database says of itself, gets nobody's rows sealed a second time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, select

from keyrack.core.instance import Instance
from keyrack.core.instance_key import InstanceKey
from keyrack.core.people.users import system_actor
from keyrack.logs import logger
from keyrack.store import instance_facts
from keyrack.store.audit import events
from keyrack.store.database import Database, DatabaseUnavailable
from keyrack.store.people import workspaces
from keyrack.store.sealing import access_tree, event_seals, sealed, sealed_tables, sums
from keyrack.store.sealing.sealed import AlteredRow
from keyrack.store.tables import (
    credentials,
    deleted_server_keys,
    deleted_servers,
    deploy_keys,
    grants,
    metadata,
    repository_names,
    system_users,
    user_keys,
)

log = logger("keyrack")

MARK = "instance.key.sealed"
COUNTED = "instance.key.counted"
EVENTS = "instance.key.events"
RECEIPTS = "instance.key.receipts"
AGAIN_AFTER = timedelta(hours=1)
WORDS: Mapping[str, str] = {
    "users": "user",
    "groups": "group",
    "group_members": "group member",
    "tokens": "token",
    "access_keys": "access key",
    "servers": "server",
    "server_tags": "tag of server",
    "system_users": "system user",
    "removed_accounts": "removed account",
    "enrolments": "enrolment token",
    "credentials": "credential",
    "user_keys": "user key",
    "grants": "grant",
    "revocations": "revocation",
    "revoked_keys": "key revoked everywhere",
    "expired_keys": "key whose end came",
    "held_back": "held back entry",
    "projects": "project",
    "repositories": "repository",
    "repository_members": "repository member",
    "deploy_keys": "deploy key",
    "repository_names": "former path of repository",
    "deleted_servers": "deleted server",
    "deleted_server_keys": "key of deleted server",
    "access_requests": "request for access",
    "access_request_approvals": "approval of a request",
    "request_rules": "rule of requests",
    "offboardings": "offboarding",
    "offboarding_hosts": "host of an offboarding",
    "offboarding_git": "Git endpoint of an offboarding",
    "key_policies": "policy of keys",
    "key_sources": "account elsewhere",
    "web_sessions": "session of a browser",
    "authenticators": "second factor",
    "identities": "identity at a provider",
    "host_keys": "host key",
    "access_tree": "count of what decides",
}
# Rows that only refuse count although they do not hold, and no document is signed without the server's own.
_REFUSING = frozenset(("revocations", "revoked_keys", "expired_keys", "held_back"))
OWNERS = (
    ("offboarding_id", "offboardings"),  # first: its server may be deleted by now
    ("server_id", "servers"),
    ("user_id", "users"),
    ("group_id", "groups"),
    ("repository_id", "repositories"),
)
_HAVING_IDS = frozenset(WORDS) - {"access_tree"}
MOST_REMEMBERED = 10_000


def named(table: str) -> str:
    """What a row of a table is called, in words."""
    return WORDS[table]


def row_name(words: str, number: int | str) -> str:
    """How an alarm names a row, such as grants:5, by what it is called in words; "" where a number is no row's name."""
    for table, called in WORDS.items():
        if called == words and table in _HAVING_IDS and len(metadata.tables[table].primary_key) == 1:
            return f"{table}:{number}"
    return ""


def use(instance: Instance) -> None:
    """Have an instance's database seal and check rows with its key, and raise an alarm for those that do not hold."""
    raised: dict[str, datetime] = {}

    def on_altered(altered: tuple[AlteredRow, ...]) -> None:
        since = instance.now() - AGAIN_AFTER
        new = [row for row in altered if raised.get(_words(row), since) <= since]
        if new:
            if len(raised) > MOST_REMEMBERED:
                raised.clear()
            raised.update((_words(row), instance.now()) for row in new)
            _alarm(instance, new)

    instance.database.seal_with(instance.key.seal_row, on_altered)


def first_time(connection: Connection, key: InstanceKey, folder: Path, *, restoring: bool = False) -> None:
    """Seal the rows of a database that was brought up from a version without seals, in that same transaction.

    Where the mark lies beside the key nothing is sealed, unless an operator restores that very copy (restoring): the
    rows then count for nothing until somebody seals them (`keyrack hosts damaged --reseal`).
    """
    if (folder / MARK).exists() and not restoring:
        log.error("this database is from before its rows were sealed; none counts until it is sealed again")
        return
    _lend(connection, key)
    count = sealed_tables.seal_all(
        connection, lambda table, row: _held_before(connection, key, table, row), lambda words: log.info(words)
    )
    count += seal_deleted_servers(connection, key, counted=False)
    log.info("rows that decide about access are sealed from now on", rows=count)
    instance_facts.mark_as_sealed(connection, _proof(key))


def _seals(key: InstanceKey) -> sealed.Seals:
    seals = sealed.Seals()
    seals.use(key.seal_row)
    return seals


def _lend(connection: Connection, key: InstanceKey) -> sealed.Seals:
    """Have a connection, on which a database is brought up, seal and check rows with this key."""
    seals = _seals(key)
    sealed.lend(connection, seals)
    return seals


def seal_deleted_servers(connection: Connection, key: InstanceKey, *, counted: bool) -> int:
    """Seal what is noted of deleted servers in a database from before that was sealed like all else, in the transaction
    that brings it up; how many rows. counted: whether its rows were counted already.

    Only what the seal of the former kind holds for, and where nothing is counted yet: a database that is set back by
    others gets nothing sealed, or counted, a second time.
    """
    seals = _lend(connection, key)
    rows = 0
    for gone in list(sealed_tables.every(connection, deleted_servers)):
        number = gone["server_id"]
        keys = list(sealed_tables.every(connection, deleted_server_keys, deleted_server_keys.c.server_id == number))
        both = ((deleted_servers, [gone]), (deleted_server_keys, keys))
        former = _of_deleted(key, gone, keys)
        if former is None or gone["seal"] != former:
            continue
        if counted and any(sealed_tables.is_missed(connection, table, number) for table, _ in both):
            continue
        for table, some in both:
            made = [{**row, sealed.SEAL: seals.of(table, row)} for row in some]
            sealed.set_seals(connection, table, made)
            rows += len(made)
            for row in made if counted else ():
                access_tree.note(connection, table, None, row)
        access_tree.settle(connection)
    return rows


def count_first_time(connection: Connection, key: InstanceKey, folder: Path, *, restoring: bool = False) -> None:
    """Count the rows of a database that was brought up from a version that did not, in that same transaction.

    As first_time: never where the mark says that they were counted, unless an operator restores that very copy.
    """
    if (folder / COUNTED).exists() and not restoring:
        log.error("this database is from before its rows were counted; none counts until they are counted again")
        return
    _lend(connection, key)
    log.info("rows that decide about access are counted from now on", rows=sealed_tables.count_all(connection))


def hide_first_time(connection: Connection, key: InstanceKey) -> None:
    """Hide the sums of servers' rows in a database that was brought up from a version that did not, in that same
    transaction. A sum that does not fit stays as it is, so that nothing is made good by it.
    """
    _lend(connection, key)
    log.info("the sums of servers' rows are hidden from now on", servers=sums.hide_older(connection))


def note_events(connection: Connection, key: InstanceKey, folder: Path, *, restoring: bool = False) -> None:
    """Note, in the transaction that brings the tables up to date, up to which event there are no seals.

    As first_time: never where the mark says that events had them, unless an operator restores that very copy.
    """
    if (folder / EVENTS).exists() and not restoring:
        log.error(
            "this database is from before events were sealed, and this key's had been: those without a seal count as "
            "entered by others. If you put an older copy back yourself, stop, delete the file, put it back once more",
            file=str(folder / EVENTS),
        )
        return
    _lend(connection, key)
    event_seals.begin(connection)


def seal_receipts(
    connection: Connection, key: InstanceKey, folder: Path, *, counted: bool, restoring: bool = False
) -> None:
    """Seal what hosts acknowledged in a database from before receipts were sealed, in the transaction that brings it
    up. counted: whether its rows were counted already, so that those of offboardings are to be counted here.

    As first_time: never where the mark says that this key's receipts were sealed, unless an operator restores that
    very copy; hosts are asked again then.
    """
    if (folder / RECEIPTS).exists() and not restoring:
        log.error(
            "this database is from before receipts were sealed, and this key's had been: hosts are asked again. "
            "If you put an older copy back yourself, stop, delete the file, put it back once more",
            file=str(folder / RECEIPTS),
        )
        return
    _lend(connection, key)
    rows = sealed_tables.seal_receipts(connection, counted=counted)
    log.info("what hosts acknowledge is sealed from now on", rows=rows)


def note_receipts(folder: Path) -> None:
    """Put the mark beside the key: receipts in the database that is open are sealed from here on."""
    if not (folder / RECEIPTS).exists():
        _put(folder / RECEIPTS, "What hosts acknowledge is sealed in this key's database. Keep this file with the key.")


def note_counted(database: Database, folder: Path) -> None:
    """Put the mark beside the key, once the rows of its database are counted; a new database's are from here on."""
    if (folder / COUNTED).exists():
        return

    def begin(connection: Connection) -> None:
        if not instance_facts.is_in_use(connection) and not access_tree.is_there(connection):
            access_tree.start(connection)

    if not database.read(access_tree.is_there):
        database.write(begin)
    if database.read(access_tree.is_there):
        _put(folder / COUNTED, "The rows of this key's database are counted. Keep this file with the key.")
    else:
        log.error("nothing counts the rows of this database; they are not counted anew by themselves")


def note_event_seals(folder: Path) -> None:
    """Put the mark beside the key: events of the database that is open have seals from here on."""
    if not (folder / EVENTS).exists():
        _put(folder / EVENTS, "The events of this key's database are sealed. Keep this file with the key.")


def note(database: Database, key: InstanceKey, folder: Path) -> None:
    """Put the mark beside the key, once the rows of its database are sealed; say so where that is in doubt."""
    if (folder / MARK).exists():
        return

    def is_sealed(connection: Connection) -> bool:
        return instance_facts.marked_as_sealed(connection) == _proof(key)

    def begin(connection: Connection) -> None:
        if not instance_facts.is_in_use(connection):
            instance_facts.mark_as_sealed(connection, _proof(key))

    if not database.read(is_sealed):
        database.write(begin)
    if database.read(is_sealed):
        _put(folder / MARK, "The rows of this key's database are sealed. Keep this file with the key.")
    else:
        log.error("nothing proves that the rows of this database were sealed; none is sealed anew")


def _proof(key: InstanceKey) -> str:
    return key.seal_row(b"rows are sealed").hex()


def _put(mark: Path, words: str) -> None:
    try:
        descriptor = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        log.warning("the mark that rows are sealed cannot be kept beside the key", file=str(mark), why=str(error))
        return
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(words + "\n")
        file.flush()
        os.fsync(file.fileno())


def holds(key: InstanceKey, table: Table, row: Mapping[str, Any]) -> bool:
    """Whether a row carries a seal of this key, of the present kind or the former one."""
    return _seals(key).holds(table, row) or row["seal"] == _former(key, table, row)


def _held_before(connection: Connection, key: InstanceKey, table: Table, row: Mapping[str, Any]) -> bool:
    """Whether a row of an older database may be sealed: four kinds had seals, and keep what these say."""
    if table is credentials:
        username = select(system_users.c.username).where(system_users.c.id == row["system_user_id"])
        row = {**row, "username": connection.execute(username).scalar()}
    if table in (deleted_servers, deleted_server_keys, repository_names):
        return False  # sealed below, or written by nobody of ours
    if table not in (credentials, user_keys, grants, deploy_keys):
        return True
    return bool(row["seal"] == _former(key, table, row))


def _former(key: InstanceKey, table: Table, row: Mapping[str, Any]) -> bytes | None:
    """The seal as it was made before all tables had one; row: a credential's with its username."""
    if table is credentials:
        limits = _json(row["restrictions"])
        ends = _moment(row["expires_at"])
        return key.seal("credential", row["server_id"], row["username"], row["public_key"], ends, limits)
    if table is user_keys:
        return key.seal("user key", row["user_id"], row["public_key"])
    if table is deploy_keys:
        return key.seal("deploy key", row["repository_id"], row["public_key"], row["can_push"])
    if table is grants:
        names = ("workspace_id", "user_id", "group_id", "server_id", "tag", "system_user")
        said = (row[name] for name in names)
        return key.seal("grant", *said, _json(row["restrictions"]), _moment(row["expires_at"]))
    return None


def _of_deleted(key: InstanceKey, gone: Mapping[str, Any], keys: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The seal of a deleted server with its keys, as it was made before; None for what was never sealed."""
    try:
        told = [sorted(row["public_key"] for row in keys), [list(entry) for entry in gone["remove_keys"]]]
        return key.seal("deleted server", gone["server_id"], gone["host"], gone["revision"], json.dumps(told))
    except (TypeError, ValueError):
        return None


def _moment(value: datetime | None) -> str:
    return "" if value is None else value.isoformat()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _alarm(instance: Instance, altered: list[AlteredRow]) -> None:
    """One alarm an hour for a row, in the log of the workspace it says it is of."""
    now = instance.now()

    def add(connection: Connection) -> None:
        for row in altered:
            words = _words(row)
            summary = f"Alarm: {words}"
            workspace_id, server_id = place(connection, row.table, row.values)
            if events.was_raised_in(connection, workspace_id, "seal-broken", summary, now - AGAIN_AFTER):
                continue
            log.error("alarm", row=row.name, reason=words)
            events.add(
                connection,
                system_actor(workspace_id, channel="agent"),
                at=now,
                action="servers:write",
                outcome="refused",
                reason="seal-broken",
                target_kind=named(row.table),
                target_id=row.key[0] if isinstance(row.key[0], int) and row.table in _HAVING_IDS else None,
                server_id=server_id,
                summary=summary,
                level="alarm",
                details={"row": row.name, "found": _found(row)},
            )

    try:
        instance.database.write(add)
    except (DatabaseUnavailable, RuntimeError):
        log.error("alarm not recorded", rows=[row.name for row in altered])


def _found(row: AlteredRow) -> str:
    """How a row is not as Keyrack wrote it, in a word."""
    ways = ("missing", "older", "receipt", "incomplete")
    return next((name for name in ways if getattr(row, name)), "changed")


def _words(row: AlteredRow) -> str:
    called = row.values.get("name") or row.values.get("path") or row.values.get("username") or ""
    what = f"{named(row.table)} {','.join(str(part) for part in row.key)}" + (f" ({called})" if called else "")
    if row.table == "access_tree" and row.older:
        return (
            "What decides about access was put back in the database to an older state, all of it. If nobody restored "
            "a copy, somebody else did; each host goes on refusing what it refused."
        )
    if row.table == "access_tree":
        return (
            f"The count of what decides ({row.name}) was changed or put back in the database, not by Keyrack. "
            "What it counted counts for nothing, until it is sealed again."
        )
    if row.missing:
        return (
            f"The {what}, or one that is counted with it, was deleted in the database, not by Keyrack, and counts for "
            "nothing any more. Make it again, or let that stand: `keyrack hosts damaged`."
        )
    if row.older:
        return (
            f"The {what} is not the newest that Keyrack wrote: it, or one that is counted with it, was put back or "
            "deleted in the database. It counts for nothing, until it is removed or sealed again."
        )
    if row.receipt:
        return (
            f"What a host acknowledged, as the {what} has it, was entered, changed or taken away in the database, "
            "not by Keyrack. It counts for nothing, and the host is asked again."
        )
    if row.incomplete:
        return f"Rows of the {what} were deleted or put back in the database, not by Keyrack. Nothing is signed for it."
    meaning = "It counts all the same, as it only refuses" if row.table in _REFUSING else "It counts for nothing"
    return f"The {what} was changed in the database, not by Keyrack. {meaning}, until it is removed or sealed again."


def place(connection: Connection, table: str, values: Mapping[str, Any]) -> tuple[int, int | None]:
    """The workspace that a row says it is of, or the first there is; and its server, where it is of one."""
    server_id = values["id"] if table == "servers" else values.get("server_id")
    workspace_id = values.get("workspace_id")
    for column, owner in OWNERS:
        if workspace_id is None and values.get(column) is not None:
            held = metadata.tables[owner]
            question = select(held.c.workspace_id).where(held.c.id == values[column])
            workspace_id = connection.execute(question).scalar()
    known = [workspace.id for workspace in workspaces.workspaces_by_name(connection)]
    if workspace_id not in known:
        workspace_id = min(known, default=0)
    return workspace_id, server_id
