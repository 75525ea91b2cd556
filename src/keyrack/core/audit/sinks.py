"""Hands each event of the audit log to syslog and to a file of JSON lines, at least once; must change no event.

One process of a machine does it: the one that holds the lock of `sinks.json` in the data folder. That file says how far
each sink is: the last event handed on and some earlier ones, newest first, each with its time. These show when a
database was set back, whose new events get ids that were handed on before.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Connection

from keyrack.core import resolving
from keyrack.core.audit.outgoing_events import fields, is_settled
from keyrack.core.instance import Instance
from keyrack.logs import logger
from keyrack.model import Event
from keyrack.settings import Settings
from keyrack.store.audit import events

log = logger("keyrack")

BATCH_SIZE = 500
SECONDS = 5.0
LONGEST_DATAGRAM = 8000
FACILITY = 13  # log audit
SEVERITY = {"info": 6, "warning": 4, "alarm": 1}

Mark = tuple[int, str]
"""An event's id, and its time, "" where that is unknown."""
NOTHING: Mark = (0, "")
MAX_MARKS = 20


class Sinks:
    """The sinks that the settings name, and how far each is. Not thread-safe."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        settings = instance.settings
        self._wanted = [name for name in ("syslog", "event_lines") if getattr(settings, name)]
        self._path = settings.data / "sinks.json"
        self._lock: int | None = None
        self._seen: dict[str, set[Mark]] = {name: set() for name in self._wanted}
        self._last_logged = ""

    @property
    def wanted(self) -> bool:
        """Whether the settings name any sink."""
        return bool(self._wanted)

    def hand_on(self) -> int:
        """Hand on new events; answers how many. A sink that fails is tried again at the next call."""
        if not self._wanted or not self._hold_lock():
            return 0
        return sum(self._hand_on_to(name) for name in self._wanted)

    def close(self) -> None:
        """Release the lock, so that another process can go on."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _hold_lock(self) -> bool:
        """Whether this process holds the lock, or gets it now."""
        if self._lock is None:
            descriptor = os.open(self._path.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                return False
            self._lock = descriptor
        return True

    def _hand_on_to(self, name: str) -> int:
        marks = self._marks()
        if name not in marks:
            newest = self._instance.database.read(lambda connection: _mark(connection, events.newest_id(connection)))
            self._note(name, newest)
            return 0
        count = 0
        seen = self._seen[name]
        last = self._instance.database.read(lambda connection: _still_there(connection, marks[name]))
        after = last[0]
        if last != marks[name][0]:
            log.warning("the database went back, so events are handed on from an earlier one", sink=name, after=after)
            seen.clear()
            self._note(name, last)
        while True:
            page = self._instance.database.read(lambda connection, after=after: _page(connection, after))  # type: ignore[misc]
            new = [event for event in page if _mark_of(event) not in seen]
            try:
                _write(name, self._instance.settings, new)
            except OSError as error:
                self._log_once(f"{name}: {error.strerror or error}")
                return count
            seen.update(map(_mark_of, new))
            count += len(new)
            settled = [event for event in page if is_settled(self._instance, event)]
            # Events that are not noted stay in `seen`, so that this process hands on none of them twice.
            if settled and self._note(name, _mark_of(settled[-1])):
                seen.difference_update(map(_mark_of, settled))
                self._last_logged = ""
            if len(page) < BATCH_SIZE:
                return count
            after = page[-1].id

    def _log_once(self, words: str) -> None:
        if words != self._last_logged:
            log.error("events are not handed on", why=words)
            self._last_logged = words

    def _marks(self) -> dict[str, list[Mark]]:
        """How far each sink is, as the file says; where it is damaged, all events are handed on again."""
        try:
            known = json.loads(self._path.read_text("utf-8"))
            # Older versions wrote a number alone.
            marks = {name: [(value, "")] if isinstance(value, int) else value for name, value in known.items()}
            return {name: [(int(number), str(at)) for number, at in value] for name, value in marks.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError):
            return {name: [NOTHING] for name in self._wanted}

    def _note(self, name: str, mark: Mark) -> bool:
        """Write to the file how far a sink is; False where that fails, as on a full disk, which is logged once."""
        marks = self._marks()
        before = [one for one in marks.get(name, []) if one[0] < mark[0]]
        text = json.dumps({**marks, name: _thinned([mark, *before])})
        new_file = self._path.with_suffix(".new")
        try:
            with new_file.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new_file.replace(self._path)
        except OSError as error:
            self._log_once(f"{new_file}: {error.strerror or error}")
            return False
        return True


def _page(connection: Connection, after: int) -> Sequence[Event]:
    return events.after(connection, after, BATCH_SIZE)


def _mark_of(event: Event) -> Mark:
    return event.id, event.at.isoformat()


def _mark(connection: Connection, number: int) -> Mark:
    at = _time(connection, number)
    return number, at or ""


def _time(connection: Connection, number: int) -> str | None:
    following = events.after(connection, number - 1, 1)
    return following[0].at.isoformat() if following and following[0].id == number else None


def _still_there(connection: Connection, marks: Sequence[Mark]) -> Mark:
    """The last event handed on that the database still has, or that retention deleted; NOTHING where it has none."""
    newest = events.newest_id(connection)
    for number, at in marks:
        if number <= newest and (not at or _time(connection, number) in (at, None)):
            return number, at
    return NOTHING


def _thinned(marks: Sequence[Mark]) -> list[Mark]:
    """At most MAX_MARKS of these: fewer the older they are, so that one is near wherever a database is set back to."""
    kept = list(marks)
    while len(kept) > MAX_MARKS:
        # Drop the one whose neighbours are nearest to each other in proportion to their age.
        behind = [kept[0][0] - number + 1 for number, _ in kept]
        index = min(range(1, len(kept) - 1), key=lambda at: behind[at + 1] / behind[at - 1])
        del kept[index]
    return kept


def _write(name: str, settings: Settings, new: Sequence[Event]) -> None:
    if not new:
        return
    if name == "event_lines":
        assert settings.event_lines is not None
        _append(settings.event_lines, new)
    else:
        _send(settings.syslog, [syslog_line(event) for event in new])


def _append(path: Path, new: Sequence[Event]) -> None:
    """Write all lines at once; they are on the disk when this returns."""
    lines = "".join(json.dumps(fields(event), separators=(",", ":")) + "\n" for event in new)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "ab") as file:
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def syslog_line(event: Event) -> bytes:
    """An event as an RFC 5424 line with its fields as JSON; cut at LONGEST_DATAGRAM bytes, where it ends in ~."""
    priority = FACILITY * 8 + SEVERITY.get(event.level, 5)
    at = event.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    words = json.dumps(fields(event), separators=(",", ":"))
    line = f"<{priority}>1 {at} {socket.gethostname() or '-'} keyrack {os.getpid()} event - {words}".encode()
    return line if len(line) <= LONGEST_DATAGRAM else line[: LONGEST_DATAGRAM - 1] + b"~"


def _send(place: str, lines: Sequence[bytes]) -> None:
    """Send each line as a datagram, or over TCP with its length before it (RFC 6587). Raises OSError."""
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
        with _connected(host, port) as stream:
            stream.sendall(b"".join(b"%d %s" % (len(line), line) for line in lines))
        return
    family, address = resolving.addresses(host, port, socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(SECONDS)
        for line in lines:
            datagrams.sendto(line, address)


def _connected(host: str, port: int) -> socket.socket:
    """A connection to the first address of a host that accepts one. Raises OSError."""
    *others, last = (address for _, address in resolving.addresses(host, port, socket.SOCK_STREAM))
    for address in others:
        with suppress(OSError):
            return socket.create_connection(address, SECONDS)
    return socket.create_connection(last, SECONDS)
