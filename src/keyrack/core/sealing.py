"""Seals the rows of older databases, which had no seals, once; must seal nothing again that a mark says is sealed.

The marks are files beside the instance key. Somebody who can write only to the database cannot remove them, so emptying
the seals does not get changed rows sealed.
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
    """Seal the rows of a database from before there were seals, in the transaction that migrates it.

    folder: of the instance key and its marks. If the mark is there, nothing is sealed, and no row counts until somebody
    seals it (`keyrack hosts damaged --reseal`); unless restoring: an operator restores this copy.
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
    new_seals = Seals()
    new_seals.use(key.seal_row)
    return new_seals


def _attach(connection: Connection, key: InstanceKey) -> Seals:
    """Have a connection, on which a database is migrated, seal and check rows with this key."""
    own_seals = _seals(key)
    seals.attach_to_connection(connection, own_seals)
    return own_seals


def seal_deleted_servers(connection: Connection, key: InstanceKey, *, counted: bool) -> int:
    """Seal the rows of deleted servers in an older database, where they had former seals, in the transaction that
    migrates it; returns how many rows. counted: the tree counts the database's other rows already.

    1. Only rows whose former seal holds. 2. Only rows that are not counted yet. So nothing is sealed or counted a
    second time in a database that others set back.
    """
    own_seals = _attach(connection, key)
    rows = 0
    for deleted in list(sealed_tables.every(connection, deleted_servers)):
        number = deleted["server_id"]
        keys = list(sealed_tables.every(connection, deleted_server_keys, deleted_server_keys.c.server_id == number))
        by_table = ((deleted_servers, [deleted]), (deleted_server_keys, keys))
        former = _of_deleted(key, deleted, keys)
        if former is None or deleted["seal"] != former:  # 1
            continue
        # 2
        if counted and any(sealed_tables.is_missed(connection, table, number) for table, _ in by_table):
            continue
        for table, table_rows in by_table:
            sealed_rows = [{**row, SEAL: own_seals.of(table, row)} for row in table_rows]
            sealed.set_seals(connection, table, sealed_rows)
            rows += len(sealed_rows)
            for row in sealed_rows if counted else ():
                access_tree.note(connection, table, None, row)
        access_tree.settle(connection)
    return rows


def count_first_time(connection: Connection, key: InstanceKey, folder: Path, *, restoring: bool = False) -> None:
    """Count the rows of a database from before rows were counted, in the transaction that migrates it.

    As first_time: not if the mark is there, unless an operator restores this copy.
    """
    if (folder / COUNTED).exists() and not restoring:
        log.error("this database is from before its rows were counted; none counts until they are counted again")
        return
    _attach(connection, key)
    log.info("rows that decide about access are counted from now on", rows=sealed_tables.count_all(connection))


def hide_first_time(connection: Connection, key: InstanceKey) -> None:
    """Convert the sums of servers' rows of an older database to hidden ones, in the transaction that migrates it.

    A sum that does not fit stays as it is, so that the mismatch is still found.
    """
    _attach(connection, key)
    log.info("the sums of servers' rows are hidden from now on", servers=sums.hide_older(connection))


def note_events(connection: Connection, key: InstanceKey, folder: Path, *, restoring: bool = False) -> None:
    """Note the last event without a seal, in the transaction that migrates the database.

    As first_time: not if the mark is there, unless an operator restores this copy.
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
    """Seal receipts in a database from before these were sealed, in the transaction that migrates it.

    counted: the tree counts its other rows already, so that those of offboardings are counted here. As first_time: not
    if the mark is there, unless an operator restores this copy; without it hosts are asked again.
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
    """Put the mark beside the key that receipts are sealed."""
    if not (folder / RECEIPTS).exists():
        _put(folder / RECEIPTS, "What hosts acknowledge is sealed in this key's database. Keep this file with the key.")


def note_counted(database: Database, folder: Path) -> None:
    """Put the mark beside the key that rows are counted, if they are; in a new database begin to count them."""
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
    """Put the mark beside the key that events have seals."""
    if not (folder / EVENTS).exists():
        _put(folder / EVENTS, "The events of this key's database are sealed. Keep this file with the key.")


def note(database: Database, key: InstanceKey, folder: Path) -> None:
    """Put the mark beside the key that rows are sealed, if the database proves it; else log an error."""
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
    """Whether a row's seal, of the present or the former kind, holds with this key."""
    return _seals(key).holds(table, row) or row["seal"] == _former(key, table, row)


def _held_before(connection: Connection, key: InstanceKey, table: Table, row: Mapping[str, Any]) -> bool:
    """Whether a row of an older database may be sealed: in tables that had former seals, only if its seal holds."""
    if table is credentials:
        username = select(system_users.c.username).where(system_users.c.id == row["system_user_id"])
        row = {**row, "username": connection.execute(username).scalar()}
    if table in (deleted_servers, deleted_server_keys, repository_names):
        return False  # sealed by seal_deleted_servers, or not written by Keyrack
    if table not in (credentials, user_keys, grants, deploy_keys):
        return True
    return bool(row["seal"] == _former(key, table, row))


def _former(key: InstanceKey, table: Table, row: Mapping[str, Any]) -> bytes | None:
    """The former kind of seal of a row, None for tables without; row: of a credential also with its username."""
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
        values = (row[name] for name in names)
        return key.seal("grant", *values, _json(row["restrictions"]), _moment(row["expires_at"]))
    return None


def _of_deleted(key: InstanceKey, deleted: Mapping[str, Any], keys: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The former seal of a deleted server with its keys, None for malformed rows."""
    try:
        listed = [sorted(row["public_key"] for row in keys), [list(entry) for entry in deleted["remove_keys"]]]
        return key.seal(
            "deleted server", deleted["server_id"], deleted["host"], deleted["revision"], json.dumps(listed)
        )
    except (TypeError, ValueError):
        return None


def _moment(value: datetime | None) -> str:
    return "" if value is None else value.isoformat()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
