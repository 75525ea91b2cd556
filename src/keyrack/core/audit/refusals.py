"""Refusals as events: the first at once, repetitions as one event with a count; must never store what a caller sent."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from keyrack.logs import logger
from keyrack.model import Actor
from keyrack.store.audit import events
from keyrack.store.database import Database, DatabaseUnavailable, WouldBlock
from keyrack.store.hosts import servers

WINDOW_SECONDS = 60.0
SEPARATE = 10
"""So many different refusals of one kind get events of their own in a minute; further ones are counted together."""
MAX_KEPT = 10_000

log = logger("keyrack")


@dataclass(frozen=True, slots=True)
class RefusedAttempt:
    """One refusal for the log: who, what was tried (aim: "delete a server"), and why not (code)."""

    actor: Actor
    action: str
    code: str
    aim: str
    target_kind: str
    target_id: int | None = None
    server_id: int | None = None
    each: bool = False
    """Whether also equal refusals get events of their own, up to SEPARATE."""

    @property
    def kind(self) -> Hashable:
        """Refusals with the same value are of one kind, and counted together beyond SEPARATE."""
        return (self.actor.workspace_id, self.actor.user_id, self.actor.token_id, self.action, self.code)

    @property
    def same(self) -> Hashable:
        """Refusals with the same value are equal."""
        return (self.kind, self.actor.address, self.actor.channel, self.target_kind, self.target_id, self.server_id)


@dataclass(slots=True)
class _Minute:
    ends: float
    began: datetime
    refused: RefusedAttempt
    separate: int = 0
    more: int = 0


class Refusals:
    """The recent refusals of one process. Counts of a process that is killed are lost; first events are not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._minutes: OrderedDict[Hashable, _Minute] = OrderedDict()
        self._later: list[tuple[RefusedAttempt, datetime]] = []
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None

    def record(self, database: Database, refused: RefusedAttempt, at: datetime, *, later: bool = False) -> None:
        """Record an event of a refusal, or count it.

        later: a thread writes the event, so that the answer does not take longer where there is one.
        """
        with self._lock:
            if not self._is_new(refused, at):
                return
            if later:
                self._later.append((refused, at))
        if later:
            self._write_soon(database)
            return
        try:
            _write(database, refused, at, 0)
        except WouldBlock:
            # A thread that may wait will try the same again, and must find it new.
            with self._lock:
                self._forget(refused)
            raise

    def write(self, database: Database, *, everything: bool = False) -> None:
        """Write what waits, and the counts of minutes that are over, or, with everything, all counts. Never raises.

        It also waits for what another thread is writing: whoever ends the process relies on that.
        """
        with self._writing:
            with self._lock:
                now = self._clock()
                later, self._later = self._later, []
                over = [name for name, minute in self._minutes.items() if everything or minute.ends <= now]
                counted = [minute for name in over if (minute := self._minutes.pop(name)).more]
            for refused, at in later:
                _write(database, refused, at, 0)
            for minute in counted:
                _write(database, minute.refused, minute.began, minute.more)

    def _is_new(self, refused: RefusedAttempt, at: datetime) -> bool:
        now = self._clock()
        same, kind = self._minutes.get(refused.same), self._minutes.get(refused.kind)
        if same is not None and same.ends > now and not refused.each:
            same.more += 1
            return False
        if kind is not None and kind.ends > now and kind.separate >= SEPARATE:
            kind.more += 1
            return False
        # A count that is over but not yet written is added to the next minute.
        self._begin(refused.same, refused, at, now, same.more if same else 0)
        if kind is None or kind.ends <= now:
            # Counted together they are of many addresses and targets, so the event names none.
            common = replace(refused, actor=replace(refused.actor, address=""), target_id=None, server_id=None)
            kind = self._begin(refused.kind, common, at, now, kind.more if kind else 0)
        kind.separate += 1
        return True

    def _forget(self, refused: RefusedAttempt) -> None:
        self._minutes.pop(refused.same, None)
        if (kind := self._minutes.get(refused.kind)) is not None:
            kind.separate -= 1

    def _begin(self, name: Hashable, refused: RefusedAttempt, at: datetime, now: float, more: int) -> _Minute:
        if name not in self._minutes and len(self._minutes) >= MAX_KEPT:
            self._minutes.popitem(last=False)
        minute = self._minutes[name] = _Minute(now + WINDOW_SECONDS, at, refused, more=more)
        self._minutes.move_to_end(name)
        return minute

    def _write_soon(self, database: Database) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=self._run, args=(database,), name="refusals", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the system has no thread left; what waits is written with the counts
                    return
                self._thread = thread
        self._wanted.set()

    def _run(self, database: Database) -> None:
        # The thread ends after a while without work; a later refusal starts another one.
        while self._wanted.wait(5):
            self._wanted.clear()
            self.write(database)


def _write(database: Database, refused: RefusedAttempt, at: datetime, more: int) -> None:
    if not refused.actor.workspace_id:
        return  # it concerns no workspace, so no log has a place for it
    words = f"Refused: tried to {refused.aim} ({refused.code})"
    details: dict[str, Any] = {}
    if more:
        words = f"Refused {more} more times: tried to {refused.aim} ({refused.code})"
        details = {"times": more}

    def change(connection: Connection) -> None:
        events.add(
            connection,
            refused.actor,
            at=at,
            action=refused.action,
            outcome="refused",
            reason=refused.code,
            target_kind=refused.target_kind,
            target_id=refused.target_id,
            # None for a server of another workspace, whose log must not show this.
            server_id=servers.own_id(connection, refused.actor.workspace_id, refused.server_id),
            summary=words,
            level="warning",
            details=details,
        )

    try:
        database.write(change)
    except (DatabaseUnavailable, RuntimeError):
        # The caller is refused all the same. Without a database nothing can have been changed either.
        log.warning("refusal not recorded", action=refused.action, code=refused.code)
