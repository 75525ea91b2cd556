"""Records an event of each login that a host reports, each once; must let nobody in and keep nobody out.

A host reports logins in batches, and repeats a batch until it gets an answer; so the name of the last stored batch is
kept. A report proves only what the host says, about itself: root there can have it say anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from keyrack.core.work import Work
from keyrack.errors import Refusal
from keyrack.model import Actor, Server
from keyrack.store.audit import events
from keyrack.store.hosts import reported_logins
from keyrack.store.hosts.reported_logins import KnownKey, ReportedLogins

CHANNEL = "ssh"
ACTION = "sessions:login"
MAX_PER_HOUR = 1000
"""Events of one host in an hour; further logins are only counted, as repeated logins must not fill the log."""
MAX = 1000
LONGEST = 1000
HOUR = timedelta(hours=1)
LATE = timedelta(minutes=1)
"""The event of a login that is reported later than this says when the login was."""

_BATCH = re.compile(r"[0-9a-f]{16,32}")


@dataclass(frozen=True, slots=True)
class Login:
    """An accepted login. fingerprint: of the key that signed, "" where it was no plain key."""

    fingerprint: str
    username: str
    address: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Batch:
    """Logins that a host reports together, oldest first.

    more: how many it had no room to keep; open_log: every account can write lines into the log that it reads them from.
    """

    name: str
    logins: tuple[Login, ...]
    more: int
    open_log: bool


def read(body: object, read_login: Callable[[Mapping[str, Any]], Login]) -> Batch | None:
    """The batch in a report, checked; None where it has none. read_login: reads an entry, or raises Refusal."""
    if not isinstance(body, Mapping):
        return None
    name, more, entries = body.get("batch"), body.get("more"), body.get("entries")
    if not isinstance(name, str) or not _BATCH.fullmatch(name) or not isinstance(entries, list):
        return None
    logins = []
    for entry in entries[:MAX]:
        if not isinstance(entry, Mapping):
            continue
        try:
            logins.append(read_login(entry))
        except Refusal:
            continue
    count = more if isinstance(more, int) and not isinstance(more, bool) and 0 <= more < 10**9 else 0
    return Batch(name, tuple(logins), count + max(0, len(entries) - MAX), body.get("anybodys") is True)


def record(work: Work, server: Server, batch: Batch) -> None:
    """Record an event of each login, with the key that signed and its owner; none of a batch that was stored before."""
    before = reported_logins.of_server(work.connection, server.id)
    if before is not None and before.batch == batch.name:
        return
    # After the clock was set back, an hour that begins in the future would last until then: it counts as over.
    is_same_hour = before is not None and timedelta(0) <= work.now - before.hour_from < HOUR
    count, left_out = (before.events, before.left_out) if before is not None and is_same_hour else (0, 0)
    if before is not None and not is_same_hour and before.left_out:
        words = f"Host {server.name} told of {before.left_out} more logins in the hour from"
        _add(work, server, f"{words} {before.hour_from:%Y-%m-%d %H:%M} UTC on; they are no events", {})
    room = MAX_PER_HOUR - count
    shown = batch.logins[: max(0, room)]
    keys = reported_logins.known_keys(
        work.connection,
        server.workspace_id,
        server.id,
        sorted({login.fingerprint for login in shown if login.fingerprint}),
    )
    for login in shown:
        key = keys.get(login.fingerprint)
        _add(
            work,
            server,
            _words(server, login, key, batch, work.now),
            _details(server, login, key),
            login=login,
            key=key,
        )
    left_out += len(batch.logins) - len(shown) + batch.more
    hour_from = before.hour_from if before is not None and is_same_hour else work.now
    reported_logins.keep(
        work.connection, server.id, ReportedLogins(batch.name, hour_from, count + len(shown), left_out)
    )


def _words(server: Server, login: Login, key: KnownKey | None, batch: Batch, now: datetime) -> str:
    where = f"logged in as {login.username} on {server.name} from {login.address}"
    remarks = "".join(_remarks(login, batch, now))
    if not login.fingerprint:
        return f"Somebody {where}, without a key of their own: by a password, or a certificate{remarks}"
    if key is None:
        return f"Somebody {where} with SSH key {login.fingerprint}, which is not registered here{remarks}"
    named = f"{key.name} ({login.fingerprint})" if key.name else login.fingerprint
    return f"{key.user or 'Somebody'} {where} with SSH key {named}{remarks}"


def _remarks(login: Login, batch: Batch, now: datetime) -> Iterator[str]:
    if now - login.at > LATE:
        yield f", at {login.at:%Y-%m-%d %H:%M:%S} UTC"
    if batch.open_log:
        yield "; its log takes lines from every account there"


def _details(server: Server, login: Login, key: KnownKey | None) -> dict[str, Any]:
    return {
        "fingerprint": login.fingerprint,
        "user": "" if key is None else key.user,
        "username": login.username,
        "server": server.name,
        "address": login.address,
        "at": f"{login.at:%Y-%m-%dT%H:%M:%SZ}",
    }


def _add(
    work: Work,
    server: Server,
    summary: str,
    details: Mapping[str, Any],
    *,
    login: Login | None = None,
    key: KnownKey | None = None,
) -> None:
    """Add an event with the key's owner as its actor, so that a filter by this person finds it."""
    person = key if key is not None and key.user_id is not None else None
    actor = Actor(
        workspace_id=server.workspace_id,
        user_id=None if person is None else person.user_id,
        name="keyrack" if person is None else person.user,
        role=None,
        address="" if login is None else login.address,
        channel=CHANNEL,
    )
    events.add(
        work.connection,
        actor,
        at=work.now,
        action=ACTION,
        outcome="done",
        reason="",
        target_kind="server",
        target_id=server.id,
        server_id=server.id,
        summary=summary[:LONGEST],
        level="info",
        details=details,
    )
