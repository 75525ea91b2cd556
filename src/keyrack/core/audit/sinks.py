"""Hands each event of the audit log to syslog and to a file of JSON lines, at least once; must change no event.

One process of a machine does it, whoever holds the lock of `sinks.json` in the data folder, which says how far it is.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Connection

from keyrack.core.audit.webhooks import fields
from keyrack.core.instance import Instance
from keyrack.logs import logger
from keyrack.model import Event
from keyrack.settings import Settings
from keyrack.store.audit import events

log = logger("keyrack")

AT_ONCE = 500
LATE = timedelta(seconds=30)
"""PostgreSQL may show an event after one with a larger id; so long events are looked for again."""
SECONDS = 5.0
LONGEST_DATAGRAM = 8000
FACILITY = 13  # log audit
SEVERITY = {"info": 6, "warning": 4, "alarm": 1}


class Sinks:
    """What the settings name, and how far each has come. Not to be used by two threads."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        settings = instance.settings
        self._wanted = [name for name in ("syslog", "event_lines") if getattr(settings, name)]
        self._path = settings.data / "sinks.json"
        self._lock: int | None = None
        self._seen: dict[str, set[int]] = {name: set() for name in self._wanted}
        self._said = ""

    @property
    def wanted(self) -> bool:
        """Whether the settings name any."""
        return bool(self._wanted)

    def look(self) -> int:
        """Hand on what is new; answers how many events. A sink that does not take them is tried again the next time."""
        if not self._wanted or not self._held():
            return 0
        return sum(self._hand_on(name) for name in self._wanted)

    def close(self) -> None:
        """Let another process do it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _held(self) -> bool:
        if self._lock is None:
            held = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(held)
                return False
            self._lock = held
        return True

    def _hand_on(self, name: str) -> int:
        after = self._place(name)
        if after is None:
            self._noted(name, self._instance.database.read(events.newest_id))
            return 0
        count = 0
        seen = self._seen[name]
        while True:
            found = self._instance.database.read(lambda connection, after=after: _after(connection, after))  # type: ignore[misc]
            fresh = [event for event in found if event.id not in seen]
            try:
                _write(name, self._instance.settings, fresh)
            except OSError as error:
                self._say(f"{name}: {error.strerror or error}")
                return count
            seen.update(event.id for event in fresh)
            count += len(fresh)
            settled = [event.id for event in found if self._is_settled(event)]
            # What is not noted stays seen, so that none goes twice as long as this process lives.
            if settled and self._noted(name, max(settled)):
                seen.difference_update(settled)
                self._said = ""
            if len(found) < AT_ONCE:
                return count
            after = found[-1].id

    def _is_settled(self, event: Event) -> bool:
        is_sqlite = self._instance.settings.database_url.startswith("sqlite")
        return is_sqlite or event.at < self._instance.now() - LATE

    def _say(self, words: str) -> None:
        if words != self._said:
            log.error("events are not handed on", why=words)
            self._said = words

    def _places(self) -> dict[str, int]:
        with suppress(OSError, ValueError):
            known = json.loads(self._path.read_text("utf-8"))
            if isinstance(known, dict):
                return {name: value for name, value in known.items() if isinstance(value, int)}
        return {}

    def _place(self, name: str) -> int | None:
        return self._places().get(name)

    def _noted(self, name: str, place: int) -> bool:
        """Whether it stands in the file how far a sink is; it cannot on a disk that is full, which is said once."""
        whole = json.dumps({**self._places(), name: place})
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(whole, "utf-8")
            fresh.replace(self._path)
        except OSError as error:
            self._say(f"{fresh}: {error.strerror or error}")
            return False
        return True


def _after(connection: Connection, after: int) -> Sequence[Event]:
    return events.after(connection, after, AT_ONCE)


def _write(name: str, settings: Settings, fresh: Sequence[Event]) -> None:
    if not fresh:
        return
    if name == "event_lines":
        assert settings.event_lines is not None
        _append(settings.event_lines, fresh)
    else:
        _send(settings.syslog, [syslog_line(event) for event in fresh])


def _append(path: Path, fresh: Sequence[Event]) -> None:
    """All lines in one write, on the disk once it returns."""
    lines = "".join(json.dumps(fields(event), separators=(",", ":")) + "\n" for event in fresh)
    held = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(held, "ab") as file:
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def syslog_line(event: Event) -> bytes:
    """An event as RFC 5424 has it: the event's fields as JSON after the summary's level and id."""
    priority = FACILITY * 8 + SEVERITY.get(event.level, 5)
    at = event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    words = json.dumps(fields(event), separators=(",", ":"))
    line = f"<{priority}>1 {at} {socket.gethostname() or '-'} keyrack {os.getpid()} event - {words}".encode()
    return line if len(line) <= LONGEST_DATAGRAM else line[: LONGEST_DATAGRAM - 1] + b"~"


def _send(place: str, lines: Sequence[bytes]) -> None:
    """One datagram a line, or over TCP each line with its length before it (RFC 6587). Raises OSError."""
    if place.startswith("unix:"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
            unix.settimeout(SECONDS)
            unix.connect(place.removeprefix("unix:"))
            for line in lines:
                unix.send(line)
        return
    parts = urlsplit(place)
    host, port = str(parts.hostname), int(parts.port or 514)
    if parts.scheme == "tcp":
        with socket.create_connection((host, port), SECONDS) as stream:
            stream.sendall(b"".join(b"%d %s" % (len(line), line) for line in lines))
        return
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as datagrams:
        datagrams.settimeout(SECONDS)
        for line in lines:
            datagrams.sendto(line, address)
