"""Wakes other processes through PostgreSQL, and is woken; must carry no news, only say that there is some."""

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
RING_PAUSE_SECONDS = 0.05
"""Between two rings. The first after a quiet while goes out at once; in a storm the news share a ring. To ring, and to
be rung, wakes a thread beside the event loop, and in each process that listens: an event loop that is busy and a thread
take the interpreter from each other at every step, and a ring takes as long as two keys that are added.
"""
LOOK_SECONDS = 5.0
"""How often to look without having been rung for: a ring is lost when its sender dies after the commit."""
RECONNECT_SECONDS = 2.0
READY_SECONDS = 5.0

Connect = Callable[[], psycopg.Connection[Any]]
Deliver = Callable[[frozenset[int]], None]


class Notifier:
    """Rings with NOTIFY, outside of the transactions that have news.

    A NOTIFY inside a transaction takes a lock that all commits with one share, which makes them 2 to 8
    times slower; one NOTIFY afterwards serves every commit since the last.
    """

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.process = 0
        """PostgreSQL's number of the connection that rings, as those who are rung for hear it; 0 without one."""
        self._gate = threading.Lock()
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._outage = Outage("Other processes are woken")

    def ring(self) -> None:
        """Have all listening processes look at the changes; returns at once."""
        if self._thread is None:
            with self._gate:
                if self._thread is None and not self._closing.is_set():
                    self._thread = threading.Thread(target=self._work, name="keyrack-notifier", daemon=True)
                    self._thread.start()
        self._wanted.set()

    def close(self) -> None:
        """Ring once more if somebody asked for it, and stop."""
        with self._gate:
            self._closing.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()

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
                    # Nothing to make durable: the news itself was committed before.
                    raw.execute("SET synchronous_commit = off")
                raw.execute(f"NOTIFY {CHANNEL}")
                self._outage.answered()
            except psycopg.Error as error:
                self._outage.failed(f"Other processes could not be woken, they look by themselves: {error}")
                self.process = 0
                if raw is not None:
                    raw.close()
                    raw = None
            if last:
                break
            self._closing.wait(RING_PAUSE_SECONDS)
        if raw is not None:
            raw.close()


class ChangeListener:
    """Hears notifiers of other processes, asks what changed since the last time, and delivers it; looks now and then
    unasked.
    """

    def __init__(self, connect: Connect, deliver: Deliver, own: Callable[[], int]) -> None:
        """own: PostgreSQL's number of the connection by which this process rings, whose changes are known already."""
        self._connect = connect
        self._own = own
        self._rung = False
        self._deliver = deliver
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._known: dict[int, int] = {}
        self._floor: int | None = None
        self._stop, self._stopped = socket.socketpair()
        self._thread = threading.Thread(target=self._work, name="keyrack-listener", daemon=True)
        self._outage = Outage("Changes of other processes are heard of")

    def start(self) -> None:
        """Listen from now on. Returns once it does, or after some seconds without an answer: it goes on."""
        self._thread.start()
        self._ready.wait(READY_SECONDS)

    def known(self, recorded: dict[int, int]) -> None:
        """Changes (server id to number) of this process that were delivered already."""
        with self._lock:
            self._known.update(recorded)

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
                    # psycopg hears some while it asks, and would keep them for good.
                    raw.add_notify_handler(lambda told: self._note(told.pid))
                    raw.execute(f"LISTEN {CHANNEL}")
                    self._listen(raw)
            except psycopg.Error as error:
                self._outage.failed(f"The connection that hears of changes is gone and is made anew: {error}")
                # Apart from each other, or all processes come back in the same instant.
                self._closing.wait(RECONNECT_SECONDS * random.uniform(0.25, 1))  # noqa: S311
            except Exception:  # who hears nothing any more would serve what was: it goes on, and says so
                log.exception("Hearing of changes stumbled over an error of its own and goes on.")
                self._closing.wait(RECONNECT_SECONDS)

    def _listen(self, raw: psycopg.Connection[Any]) -> None:
        """Look at once (much may have happened without us), then at each ring and now and then."""
        if self._floor is None:
            self._floor = changes.floor_on_postgresql(raw)
        while not self._closing.is_set():
            self._rung = False  # before the look: what rings from here on may be of something it does not see
            self._look(raw)
            self._outage.answered()
            self._ready.set()
            self._await_ring(raw)

    def _look(self, raw: psycopg.Connection[Any]) -> None:
        assert self._floor is not None
        floor, found = changes.since_on_postgresql(raw, self._floor)
        if floor < self._floor:
            # Another server is in its place by now, which lacks the last commits: transactions have numbers again that
            # were known, or were too low to be asked for. Whatever it holds may be news.
            floor, found = changes.since_on_postgresql(raw, 0)
            with self._lock:
                self._known = {}
        with self._lock:
            news = frozenset(s for s, change in found.items() if self._known.get(s) != change)
            self._known.update(found)
            self._known = {s: change for s, change in self._known.items() if change >= floor}
        self._floor = floor
        if news:
            self._deliver(news)

    def _await_ring(self, raw: psycopg.Connection[Any]) -> None:
        """Wait for another process, the end, or a while. Everything that has arrived counts as one ring."""
        until = time.monotonic() + LOOK_SECONDS
        # select() itself fails from descriptor 1024 on, and each waiting host has one.
        with selectors.DefaultSelector() as selector:
            selector.register(raw.pgconn.socket, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while True:
                while (notice := raw.pgconn.notifies()) is not None:
                    self._note(notice.be_pid)
                left = until - time.monotonic()
                if self._rung or self._closing.is_set() or left <= 0:
                    return
                selector.select(left)
                raw.pgconn.consume_input()

    def _note(self, process: int) -> None:
        # To look for what this process itself did would take longer than many a change does.
        self._rung = self._rung or process != self._own()
