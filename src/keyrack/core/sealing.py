"""Seals the rows of a database from before there were seals, once; must never seal by itself what the key's own mark
says is sealed already.

The mark lies beside the instance key, where whoever can write to the database alone does not come: emptying the
seals, or what the database says of itself, gets nobody's rows sealed a second time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, select

from keyrack.core.instance_key import InstanceKey
from keyrack.logs import logger
from keyrack.store import instance_facts
from keyrack.store.database import Database
from keyrack.store.sealing import access_tree, event_seals, sealed, sealed_tables, seals, sums
from keyrack.store.sealing.seals import SEAL, Seals
from keyrack.store.tables import (
    credentials,
    deleted_server_keys,
    deleted_servers,
    deploy_keys,
    grants,
    repository_names,
    system_users,
    user_keys,
)

log = logger("keyrack")

MARK = "instance.key.sealed"
COUNTED = "instance.key.counted"
EVENTS = "instance.key.events"
RECEIPTS = "instance.key.receipts"


def first_time(connection: Connection, key: InstanceKey, folder: Path, *, restoring: bool = False) -> None:
    """Seal the rows of a database that was brought up from a version without seals, in that same transaction.

    Where the mark lies beside the key nothing is sealed, unless an operator restores that very copy (restoring): the
    rows then count for nothing until somebody seals them (`keyrack hosts damaged --reseal`).
    """
    if (folder / MARK).exists() and not restoring:
        log.error("this database is from before its rows were sealed; none counts until it is sealed again")
        return
    _attach(connection, key)
    count = sealed_tables.seal_all(
        connection, lambda table, row: _held_before(connection, key, table, row), lambda words: log.info(words)
    )
    count += seal_deleted_servers(connection, key, counted=False)
    log.info("rows that decide about access are sealed from now on", rows=count)
    instance_facts.mark_as_sealed(connection, _proof(key))


def _seals(key: InstanceKey) -> Seals:
    made = Seals()
    made.use(key.seal_row)
    return made


def _attach(connection: Connection, key: InstanceKey) -> Seals:
    """Have a connection, on which a database is brought up, seal and check rows with this key."""
    ours = _seals(key)
    seals.attach_to_connection(connection, ours)
    return ours


def seal_deleted_servers(connection: Connection, key: InstanceKey, *, counted: bool) -> int:
    """Seal what is noted of deleted servers in a database from before that was sealed like all else, in the transaction
    that brings it up; how many rows. counted: whether its rows were counted already.

    Only what the seal of the former kind holds for, and where nothing is counted yet: a database that is set back by
    others gets nothing sealed, or counted, a second time.
    """
    ours = _attach(connection, key)
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
            made = [{**row, SEAL: ours.of(table, row)} for row in some]
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
    _attach(connection, key)
    log.info("rows that decide about access are counted from now on", rows=sealed_tables.count_all(connection))


def hide_first_time(connection: Connection, key: InstanceKey) -> None:
    """Hide the sums of servers' rows in a database that was brought up from a version that did not, in that same
    transaction. A sum that does not fit stays as it is, so that nothing is made good by it.
    """
    _attach(connection, key)
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
    _attach(connection, key)
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
    _attach(connection, key)
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
        if not instance_facts.is_in_use(connection) and not access_tree.has_root(connection):
            access_tree.start(connection)

    if not database.read(access_tree.has_root):
        database.write(begin)
    if database.read(access_tree.has_root):
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
