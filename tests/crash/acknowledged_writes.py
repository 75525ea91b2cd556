"""Checks that what was acknowledged is in the database with its events; must not wait for the end of a run."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection, select

from keyrack.core.instance import Instance
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from tests.crash.many_processes import Acknowledged, ManyProcesses

BATCH_SIZE = 500
# Numbers of events are given before they are committed, so a later one may be seen first.
OVERLAP = 2_000


class AcknowledgedWrites:
    """Looks with an instance of its own, as one more process would; closes it at the end."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._began = time.monotonic()
        self._seen: set[str] = set()
        self._last_event = 0
        self._told: set[str] = set()

    def close(self) -> None:
        """Let go of the database."""
        self._instance.database.close()

    def check(self, known: Acknowledged) -> None:
        """Every change that was acknowledged since the last call is there, and so is its event."""
        with known.lock:
            added = {label: line for label, line in known.added.items() if label not in self._seen}
            revoked = known.revoked - self._seen
            users = known.users - self._seen
        there: dict[str, str] = {}
        labels = list(added)
        for start in range(0, len(labels), BATCH_SIZE):
            there |= {row.label: row.public_key for row in self._read(_keys(labels[start : start + BATCH_SIZE]))}
        refused = {row.fingerprint for row in self._read(select(tables.revoked_keys.c.fingerprint))}
        people = {row.name for row in self._read(select(tables.users.c.name))}
        self._read_events()
        with known.lock:
            lasting = {label for label, line in added.items() if parse(line).fingerprint not in known.tried_to_revoke}
        lost = {label for label in lasting if there.get(label) != added[label]}
        assert not lost, f"acknowledged and not there: {lost}"
        assert revoked <= refused, f"acknowledged and not revoked: {revoked - refused}"
        assert users <= people, f"acknowledged and not there: {users - people}"
        added_or_removed = added.keys() | revoked | users
        assert added_or_removed <= self._told, f"without an event: {added_or_removed - self._told}"
        self._seen |= added_or_removed

    def check_whole_file(self) -> None:
        """SQLite's own check of the whole file; PostgreSQL has none that a client can ask for."""
        if self._instance.database.dialect != "sqlite":
            return
        assert self._pragma("integrity_check") == [("ok",)]
        assert self._pragma("foreign_key_check") == []

    def progress(self, many: ManyProcesses) -> str:
        """How far it is, in one line."""
        known = many.acknowledged
        seconds = time.monotonic() - self._began
        each = ", ".join(f"{name} {count}" for name, count in sorted(many.killed.items()))
        return (
            f"{many.killed.total()} kills ({each}) in {seconds:.0f} s; acknowledged and found with their events: "
            f"{len(known.added)} keys, {len(known.revoked)} revocations, {len(known.users)} users"
        )

    def _read_events(self) -> None:
        columns = tables.events.c
        question = select(columns.id, columns.target_kind, columns.action, columns.summary, columns.details)
        for row in self._read(question.where(columns.id > self._last_event - OVERLAP).order_by(columns.id)):
            self._last_event = max(self._last_event, row.id)
            if "label" in row.details:
                self._told.add(str(row.details["label"]))
            if row.action == "keys:revoke" and "reason" in row.details:
                self._told.add(str(row.details["fingerprint"]))
            if row.target_kind == "user":
                self._told |= set(row.summary.split())

    def _read(self, question: Any) -> list[Any]:
        return self._instance.database.read(lambda connection: list(connection.execute(question)))

    def _pragma(self, name: str) -> list[tuple[Any, ...]]:
        def ask(connection: Connection) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.exec_driver_sql(f"PRAGMA {name}")]

        return self._instance.database.read(ask)


def _keys(labels: list[str]) -> Any:
    columns = tables.credentials.c
    return select(columns.label, columns.public_key).where(columns.server_id == 1, columns.label.in_(labels))
