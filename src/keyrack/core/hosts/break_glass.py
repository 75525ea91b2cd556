"""Raises the alarm when a break-glass key is used, which is kept for emergencies; must keep nobody out.

Hosts report each login (core/hosts/login_reports.py). Logins from while the service was away are reported once it is
back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from keyrack.core.people.actors import system_actor
from keyrack.core.work import Work
from keyrack.logs import logger
from keyrack.model import Server
from keyrack.store.audit import events
from keyrack.store.keys import break_glass, key_owners
from keyrack.store.keys.break_glass import BreakGlassKey

log = logger("keyrack")

CODE = "break-glass"
GONE = "gone"
"""The kind of a key that was deleted before the host reported its use."""
HOUR = timedelta(hours=1)
MAX_PER_HOUR = 100
NEAR = timedelta(minutes=1)
"""The reported times of a session and of the login that began it differ by less."""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A login with a key, as a host reports it.

    username: "" where the host does not say; is_break_glass: the host says that the document which let the key in
    marked it as a break-glass key.
    """

    fingerprint: str
    username: str
    address: str
    at: datetime
    is_break_glass: bool = False


@dataclass(frozen=True, slots=True)
class BreakGlassUse:
    """A login with a break-glass key."""

    login: KeyUse
    key: BreakGlassKey


def among(
    connection: Connection, server: Server, used: Iterable[KeyUse], opened: Iterable[KeyUse], now: datetime
) -> list[BreakGlassUse]:
    """The logins with break-glass keys that have had no alarm yet.

    used: uses of keys that the host reports; opened: sessions that it reports for the first time.
    """
    reported_uses = [*used]
    sessions = [login for login in opened if not any(_same(login, use) for use in reported_uses)]
    logins = [*reported_uses, *sessions]
    fingerprints = sorted({login.fingerprint for login in logins if login.fingerprint})
    if not fingerprints:
        return []
    keys = break_glass.of_keys(connection, server.id, server.workspace_id, fingerprints, now)
    # A key that was deleted before the report is a break-glass key all the same, if the host says so.
    deleted = {login.fingerprint for login in logins if login.is_break_glass and _key_used(keys, login) is None}
    if not keys and not deleted:
        return []
    owners = key_owners.names(connection, server.workspace_id, sorted(deleted)) if deleted else {}
    last_uses = break_glass.last_uses(connection, server.id, fingerprints)
    new_uses = []
    for login in logins:
        key = _key_used(keys, login)
        if key is None and login.is_break_glass:
            key = BreakGlassKey(login.fingerprint, login.username, GONE, 0, "", owners.get(login.fingerprint))
        last_use = last_uses.get(login.fingerprint)
        tolerance = NEAR if login in sessions else timedelta()
        if key is not None and (last_use is None or last_use < login.at - tolerance):
            new_uses.append(BreakGlassUse(login, key))
    return new_uses


def alarm(work: Work, server: Server, uses: Sequence[BreakGlassUse]) -> None:
    """Record an alarm for each use, at most MAX_PER_HOUR of one host: it could report logins that nobody made."""
    if not uses:
        return
    recent = events.count_lately(work.connection, server.id, CODE, work.now - HOUR)
    for one in uses[: max(0, MAX_PER_HOUR - recent)]:
        _alarm_of_one(work, server, one)
    if recent <= MAX_PER_HOUR < recent + len(uses):
        words = (
            f"Alarm: host {server.name} tells of glass that was broken more than {MAX_PER_HOUR} times within an "
            "hour; what it tells beyond that is no event"
        )
        _add(work, server, words, target_id=None, details={"server": server.name})


def _alarm_of_one(work: Work, server: Server, use: BreakGlassUse) -> None:
    """Record the alarm of one use: who, where, from where, and how to end the session."""
    login, key = use.login, use.key
    account = login.username or key.username
    who = f"{key.user} " if key.user else ""
    named = f"{key.name} ({key.fingerprint})" if key.name else key.fingerprint
    session_id = break_glass.session(work.connection, server.id, login.fingerprint, account, login.address)
    command = f"keyrack sessions end {server.name} {session_id}"
    end = "the login is over already" if session_id is None else f"end it: {command}"
    by = "which was taken away before this was told" if key.kind == GONE else f"by {key.kind} {key.id}"
    words = (
        f"Alarm: glass broken: {who}logged in as {account} on {server.name} from {login.address} at "
        f"{login.at:%Y-%m-%d %H:%M:%S} UTC with SSH key {named}, {by}; {end}"
    )
    details: dict[str, Any] = {
        "fingerprint": key.fingerprint,
        "user": key.user,
        "username": account,
        "server": server.name,
        "address": login.address,
        "at": f"{login.at:%Y-%m-%dT%H:%M:%SZ}",
        **({} if key.kind == GONE else {key.kind: key.id}),
        "session": session_id,
        "end": None if session_id is None else f"DELETE /api/keyrack/v1/servers/{server.id}/sessions/{session_id}",
    }
    _add(work, server, words, target_id=session_id, details=details)


def _add(work: Work, server: Server, words: str, *, target_id: int | None, details: Mapping[str, Any]) -> None:
    events.add(
        work.connection,
        system_actor(server.workspace_id, channel="agent"),
        at=work.now,
        action="sessions:write",
        outcome="done",
        reason=CODE,
        target_kind="session",
        target_id=target_id,
        server_id=server.id,
        summary=words,
        level="alarm",
        details=details,
    )
    log.error("alarm", server=server.id, reason=words)


def _same(login: KeyUse, other: KeyUse) -> bool:
    return (login.fingerprint, login.address) == (other.fingerprint, other.address) and (
        not other.username or other.username == login.username
    )


def _key_used(keys: Mapping[tuple[str, str], BreakGlassKey], login: KeyUse) -> BreakGlassKey | None:
    if login.username:
        return keys.get((login.fingerprint, login.username))
    return next((one for (fingerprint, _), one in keys.items() if fingerprint == login.fingerprint), None)
