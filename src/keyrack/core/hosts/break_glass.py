"""Raises the alarm when a key is used that is there to break glass with; must keep nobody out.

A host tells of each login (core/hosts/login_reports.py), also of those while the service was away, once it is back.
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
from keyrack.store.keys.break_glass import Glass

log = logger("keyrack")

CODE = "break-glass"
GONE = "gone"
"""The kind of glass of which nothing is left here."""
HOUR = timedelta(hours=1)
MOST_AN_HOUR = 100
NEAR = timedelta(minutes=1)
"""A session and the login that began it are told with times that differ by less."""


@dataclass(frozen=True, slots=True)
class KeyUse:
    """A login with a key that a host tells of. username: "" where it does not say; glass: whether it says that the
    document which let it in called the key one to break glass with.
    """

    fingerprint: str
    username: str
    address: str
    at: datetime
    glass: bool = False


@dataclass(frozen=True, slots=True)
class GlassUse:
    """Glass that was broken: by which login, with what."""

    login: KeyUse
    glass: Glass


def among(
    connection: Connection, server: Server, used: Iterable[KeyUse], opened: Iterable[KeyUse], now: datetime
) -> list[GlassUse]:
    """The logins with keys to break glass with, of which nobody was told yet.

    used: as the host tells of uses of keys, opened: of sessions that were not known before.
    """
    kept = [*used]
    sessions = [login for login in opened if not any(_same(login, use) for use in kept)]
    logins = [*kept, *sessions]
    fingerprints = sorted({login.fingerprint for login in logins if login.fingerprint})
    if not fingerprints:
        return []
    glasses = break_glass.of_keys(connection, server.id, server.workspace_id, fingerprints, now)
    # What was taken away before the host told is glass all the same, by the host's word.
    gone = {login.fingerprint for login in logins if login.glass and _glass(glasses, login) is None}
    if not glasses and not gone:
        return []
    owners = key_owners.names(connection, server.workspace_id, sorted(gone)) if gone else {}
    known = break_glass.last_uses(connection, server.id, fingerprints)
    found = []
    for login in logins:
        glass = _glass(glasses, login)
        if glass is None and login.glass:
            glass = Glass(login.fingerprint, login.username, GONE, 0, "", owners.get(login.fingerprint))
        before = known.get(login.fingerprint)
        late = NEAR if login in sessions else timedelta()
        if glass is not None and (before is None or before < login.at - late):
            found.append(GlassUse(login, glass))
    return found


def alarm(work: Work, server: Server, broken: Sequence[GlassUse]) -> None:
    """Leave an alarm of each, at most MOST_AN_HOUR of one host: it could cry without end, of keys that nobody has."""
    if not broken:
        return
    recent = events.count_lately(work.connection, server.id, CODE, work.now - HOUR)
    for one in broken[: max(0, MOST_AN_HOUR - recent)]:
        _alarm_of_one(work, server, one)
    if recent <= MOST_AN_HOUR < recent + len(broken):
        words = (
            f"Alarm: host {server.name} tells of glass that was broken more than {MOST_AN_HOUR} times within an "
            "hour; what it tells beyond that is no event"
        )
        _add(work, server, words, target_id=None, details={"server": server.name})


def _alarm_of_one(work: Work, server: Server, broken: GlassUse) -> None:
    """The event: who, where, from where, and how to end it; webhooks and other receivers of events hear of it."""
    login, glass = broken.login, broken.glass
    account = login.username or glass.username
    who = f"{glass.user} " if glass.user else ""
    key = f"{glass.name} ({glass.fingerprint})" if glass.name else glass.fingerprint
    number = break_glass.session(work.connection, server.id, login.fingerprint, account, login.address)
    end = "the login is over already" if number is None else f"end it: keyrack sessions end {server.name} {number}"
    by = "which was taken away before this was told" if glass.kind == GONE else f"by {glass.kind} {glass.id}"
    words = (
        f"Alarm: glass broken: {who}logged in as {account} on {server.name} from {login.address} at "
        f"{login.at:%Y-%m-%d %H:%M:%S} UTC with SSH key {key}, {by}; {end}"
    )
    details: dict[str, Any] = {
        "fingerprint": glass.fingerprint,
        "user": glass.user,
        "username": account,
        "server": server.name,
        "address": login.address,
        "at": f"{login.at:%Y-%m-%dT%H:%M:%SZ}",
        **({} if glass.kind == GONE else {glass.kind: glass.id}),
        "session": number,
        "end": None if number is None else f"DELETE /api/keyrack/v1/servers/{server.id}/sessions/{number}",
    }
    _add(work, server, words, target_id=number, details=details)


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


def _glass(glasses: Mapping[tuple[str, str], Glass], login: KeyUse) -> Glass | None:
    if login.username:
        return glasses.get((login.fingerprint, login.username))
    return next((one for (fingerprint, _), one in glasses.items() if fingerprint == login.fingerprint), None)
