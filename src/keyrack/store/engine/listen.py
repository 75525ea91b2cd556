"""Notifies other processes through PostgreSQL that servers changed, and is notified; must not say which servers."""

from __future__ import annotations

import logging
import random
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg

from keyrack.store import changes
from keyrack.store.engine.outage import Outage

log = logging.getLogger(__name__)

CHANNEL = "keyrack_changes"
NOTIFY_PAUSE_SECONDS = 0.05
"""Pause between two notifications. The first after a while is sent immediately; under load several changes share one.
Each wakes a thread in this process and in every process that listens. A busy event loop and a thread take the
interpreter from each other at every step, so that a notification costs as much as adding two keys.
"""
POLL_SECONDS = 5.0
"""How often to read changes without a notification, which is lost when its sender dies after the commit."""
RECONNECT_SECONDS = 2.0
READY_SECONDS = 5.0

Connect = Callable[[], psycopg.Connection[Any]]
Deliver = Callable[[frozenset[int]], None]


class Notifier:
    """Sends NOTIFY, outside of the transactions that change servers.

    A NOTIFY inside a transaction takes a lock that all commits with a NOTIFY share, which makes them 2 to 8
    times slower; one NOTIFY afterwards serves every commit since the last.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.process = 0
        """The backend's process number of the connection that notifies, which listeners see; 0 without one."""
        self._gate = threading.Lock()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._outage = Outage("Other processes are notified")

    def notify(self) -> None:
        """Have all listening processes read the changes; returns at once. Raises nothing, as they are committed."""
        if self._thread is None:
            with self._gate:
                if self._thread is None and not self._closing.is_set():
                    self._start()
        self._wanted.set()

    def close(self) -> None:
        """Send a last notification if one was asked for, and stop."""
        with self._gate:
            self._closing.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        thread = threading.Thread(target=self._work, name="keyrack-notifier", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left; the next change tries again
            self._outage.failed(f"Other processes could not be notified; they poll for changes: {error}")
        else:
            self._thread = thread

    def _work(self) -> None:
        raw: psycopg.Connection[Any] | None = None
        while True:
            self._wanted.wait()
            self._wanted.clear()
            last = self._closing.is_set()
            try:
                if raw is None:
                    raw = self._connect()
                    self.process = raw.info.backend_pid
                    # Nothing to make durable: the changes themselves were committed before.
                    raw.execute("SET synchronous_commit = off")
                raw.execute(f"NOTIFY {CHANNEL}")
                self._outage.answered()
            except psycopg.Error as error:
                self._outage.failed(f"Other processes could not be notified; they poll for changes: {error}")
                self.process = 0
                if raw is not None:
                    raw.close()
                    raw = None
            if last:
                break
            self._closing.wait(NOTIFY_PAUSE_SECONDS)
        if raw is not None:
            raw.close()


class ChangeListener:
    """Waits for notifications of other processes, then reads what changed since the last time, and delivers it. It also
    polls, every POLL_SECONDS.
    """

    def __init__(self, connect: Connect, deliver: Deliver, own_process: Callable[[], int]) -> None:
        """deliver: called with the ids of servers that changed; own_process: the backend's process number of the
        connection by which this process notifies, whose changes were delivered already.
        """
        self._connect = connect
        self._own_process = own_process
        self._notified = False
        self._deliver = deliver
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._delivered: dict[int, int] = {}
        self._floor: int | None = None
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._work, name="keyrack-listener", daemon=True)
        self._outage = Outage("Changes of other processes are received")

    def start(self) -> None:
        """Listen from now on. Returns once it listens, or after READY_SECONDS, when it goes on trying."""
        self._thread.start()
        self._ready.wait(READY_SECONDS)

    def mark_delivered(self, recorded: dict[int, int]) -> None:
        """Remember changes (server id to number) of this process that were delivered already."""
        with self._lock:
            self._delivered.update(recorded)

    def close(self) -> None:
        """Stop listening."""
        self._closing.set()
        self._stop.close()
        self._thread.join()
        self._stopped.close()

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                with self._connect() as raw:
                    # psycopg receives some while it runs a statement; without a handler it would keep them for good.
                    raw.add_notify_handler(lambda notification: self._note_notification(notification.pid))
                    raw.execute(f"LISTEN {CHANNEL}")
                    self._listen(raw)
            except psycopg.Error as error:
                self._outage.failed(
                    f"The connection that listens for changes broke, and another one is opened: {error}"
                )
                # A random pause, so that not all processes reconnect in the same instant.
                self._closing.wait(RECONNECT_SECONDS * random.uniform(0.25, 1))  # noqa: S311
            except Exception:  # without this thread the process would serve outdated states, so it goes on
                log.exception("Listening for changes failed; it goes on.")
                self._closing.wait(RECONNECT_SECONDS)

    def _listen(self, raw: psycopg.Connection[Any]) -> None:
        """Read changes first, as some may have come meanwhile, then at each notification and every POLL_SECONDS."""
        if self._floor is None:
            self._floor = changes.floor_on_postgresql(raw)
        while not self._closing.is_set():
            self._notified = False  # before reading: a later notification may be of a change that is not read now
            self._read_changes(raw)
            self._outage.answered()
            self._ready.set()
            self._await_notification(raw)

    def _read_changes(self, raw: psycopg.Connection[Any]) -> None:
        assert self._floor is not None
        floor, latest_changes = changes.since_on_postgresql(raw, self._floor)
        if floor < self._floor:
            # After a failover to a server that lacks the last commits, its transactions reuse numbers that were
            # delivered already or are below the floor. So all its changes are delivered again.
            floor, latest_changes = changes.since_on_postgresql(raw, 0)
            with self._lock:
                self._delivered = {}
        with self._lock:
            undelivered = frozenset(s for s, change in latest_changes.items() if self._delivered.get(s) != change)
            self._delivered.update(latest_changes)
            self._delivered = {s: change for s, change in self._delivered.items() if change >= floor}
        self._floor = floor
        if undelivered:
            self._deliver(undelivered)

    def _await_notification(self, raw: psycopg.Connection[Any]) -> None:
        """Wait for a notification, the end, or POLL_SECONDS. All that has arrived counts as one notification."""
        until = time.monotonic() + POLL_SECONDS
        # select() itself fails from descriptor 1024 on, and each waiting host has one.
        with selectors.DefaultSelector() as selector:
            selector.register(raw.pgconn.socket, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while True:
                while (notice := raw.pgconn.notifies()) is not None:
                    self._note_notification(notice.be_pid)
                left = until - time.monotonic()
                if self._notified or self._closing.is_set() or left <= 0:
                    return
                selector.select(left)
                raw.pgconn.consume_input()

    def _note_notification(self, process: int) -> None:
        # This process's own notification is ignored: to read what it changed itself takes longer than many a change.
        self._notified = self._notified or process != self._own_process()
