"""Reads and stores what a host reports of logins: its sessions and last uses of keys; must believe no host about
another one.

A malformed entry is left out; the others of its report count.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import Connection

from keyrack.core.hosts import break_glass, logins
from keyrack.core.hosts.break_glass import BreakGlassUse, KeyUse
from keyrack.core.instance import Instance
from keyrack.core.work import Work
from keyrack.errors import Refusal, invalid
from keyrack.model import Server
from keyrack.ssh.fingerprint import is_fingerprint
from keyrack.ssh.names import LONGEST_ACCOUNT
from keyrack.ssh.printable import printable
from keyrack.store.hosts import host_reports, servers

MAX_SESSIONS = 10_000
MAX_USES = 10_000
BATCH_SIZE = 500
"""So many changes are in one transaction: all other writes wait for it."""
LONGEST_ADDRESS = 64

_Read = TypeVar("_Read")

_SESSION = re.compile(r"[A-Za-z0-9-]{1,64}")
# This and fromisoformat take a tenth of strptime's time, and a host may report thousands.
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True, slots=True)
class Logins:
    """The logins in a report, checked; None for a field that the report has not.

    sessions: columns by the session's name; live: the names of all open sessions, also those whose entries are
    malformed; uses: fingerprint, time and address of uses of keys; accounts: as whom a key was used, by fingerprint and
    address; break_glass: fingerprint and address of logins that used a break-glass key, as the host says; batch: the
    logins that become events.
    """

    sessions: Mapping[str, Mapping[str, Any]] | None
    live: frozenset[str]
    uses: Sequence[tuple[str, datetime, str]] | None
    accounts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    break_glass: frozenset[tuple[str, str]] = frozenset()
    batch: logins.Batch | None = None


def read(body: Mapping[str, Any], now: datetime) -> Logins:
    """The sessions and uses of keys in a report, checked. Raises Refusal INVALID for what is no list of objects.

    body: `sessions` has all that are open now; `last_used` accepted logins since the last report, at most one for each
    key. Call it before the transaction: a host may report thousands, and all writes would wait.
    """
    sessions, live, uses, accounts = None, frozenset[str](), None, {}
    break_glass_logins: set[tuple[str, str]] = set()
    if "sessions" in body:
        listed = _entries(body["sessions"], "sessions", MAX_SESSIONS)
        # A known session stays open even where its entry is malformed now.
        live = frozenset(str(entry["id"]) for entry in listed if _is_session(entry.get("id")))
        sessions = dict(_sound(listed, lambda entry: _session(entry, now)))
    if "last_used" in body:
        listed = _entries(body["last_used"], "last_used", MAX_USES)
        uses = _sound(listed, lambda entry: _use(entry, now))
        uses_by_account = _sound(listed, lambda entry: (*_use(entry, now), _username(entry)))
        accounts = {(fingerprint, address): user for fingerprint, _, address, user in uses_by_account}
    for entry in (*_break_glass_entries(body, "sessions"), *_break_glass_entries(body, "last_used")):
        break_glass_logins.add((str(entry.get("fingerprint")), _read_address(str(entry.get("address")))))
    batch = logins.read(body.get("logins"), lambda entry: _login(entry, now))
    return Logins(sessions, live, uses, accounts, frozenset(break_glass_logins), batch)


@dataclass(frozen=True, slots=True)
class LoginsPiece:
    """Some of what a report changes, few enough that no other write waits long.

    ended: names of sessions; new: columns of sessions; uses: fingerprint, time and address.
    """

    ended: Sequence[str]
    new: Sequence[Mapping[str, Any]]
    uses: Sequence[tuple[str, datetime, str]]
    break_glass_uses: Sequence[BreakGlassUse] = ()
    batch: logins.Batch | None = None

    @property
    def logins(self) -> int:
        """How many logins it reports; a use of the key that opened a new session is the same login."""
        opened = {(row["fingerprint"], row["address"]) for row in self.new}
        return len(self.new) + sum(1 for fingerprint, _, address in self.uses if (fingerprint, address) not in opened)


def pieces(instance: Instance, server: Server, reported: Logins) -> list[LoginsPiece]:
    """What to store of a report's sessions and uses. Each piece is true without the others; after a failure the host
    reports all of it again.
    """
    reported_uses = reported.uses or ()
    if reported.sessions is None and not reported_uses:
        return [] if reported.batch is None else [LoginsPiece((), (), (), batch=reported.batch)]

    def question(connection: Connection) -> tuple[frozenset[str], frozenset[str], list[BreakGlassUse]]:
        known = frozenset[str]()
        if reported.sessions is not None:
            known = host_reports.session_names(connection, server.id)
        # A host may report uses only of its workspace's keys, as a key's uses are shown to its owner.
        used_keys = {use[0] for use in reported_uses}
        opened = (
            ()
            if reported.sessions is None
            else [
                KeyUse(
                    row["fingerprint"],
                    row["username"],
                    row["address"],
                    row["started_at"],
                    (row["fingerprint"], row["address"]) in reported.break_glass,
                )
                for name, row in reported.sessions.items()
                if name not in known
            ]
        )
        used = [
            KeyUse(key, reported.accounts.get((key, address), ""), address, at, (key, address) in reported.break_glass)
            for key, at, address in reported_uses
        ]
        break_glass_uses = break_glass.among(connection, server, used, opened, instance.now())
        return known, host_reports.known_fingerprints(connection, server.workspace_id, used_keys), break_glass_uses

    known, known_keys, break_glass_uses = instance.database.read(question)
    changes: list[tuple[str, Any]] = []
    if reported.sessions is not None:
        changes += [("ended", name) for name in sorted(known - reported.sessions.keys() - reported.live)]
        new = ({"host_session": name, **values} for name, values in reported.sessions.items() if name not in known)
        changes += [("new", row) for row in new]
    # After the sessions, as the alarms name these by id.
    changes += [("break_glass_uses", use) for use in break_glass_uses]
    changes += [("uses", use) for use in reported_uses if use[0] in known_keys]
    parts = []
    for at in range(0, max(1, len(changes)), BATCH_SIZE):
        part = changes[at : at + BATCH_SIZE]
        ended, new_sessions, uses, alarms = (
            [change for name, change in part if name == kind] for kind in ("ended", "new", "uses", "break_glass_uses")
        )
        parts.append(LoginsPiece(ended, new_sessions, uses, alarms))
    parts[0] = replace(parts[0], batch=reported.batch)
    return parts


def store(work: Work, server: Server, piece: LoginsPiece) -> None:
    """Store a piece; nothing of it where the server was deleted meanwhile."""
    work.no_event("open sessions are no change that anybody made")
    if servers.by_id(work.connection, server.id) is not None:
        host_reports.end_sessions(work.connection, server.id, piece.ended)
        host_reports.add_sessions(work.connection, server.id, piece.new)
        break_glass.alarm(work, server, piece.break_glass_uses)
        host_reports.note_uses(work.connection, server.id, piece.uses)
        if piece.batch is not None:
            logins.record(work, server, piece.batch)


def _break_glass_entries(body: Mapping[str, Any], field: str) -> Iterable[Mapping[str, Any]]:
    """The entries of a list that the host says used a break-glass key."""
    listed = body.get(field)
    entries = listed if isinstance(listed, list) else ()
    return (entry for entry in entries if isinstance(entry, Mapping) and entry.get("break_glass") is True)


def _sound(listed: list[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], _Read]) -> list[_Read]:
    """What could be read of all entries."""
    entries = []
    for entry in listed:
        try:
            entries.append(read(entry))
        except Refusal:
            continue
    return entries


def _session(entry: Mapping[str, Any], now: datetime) -> tuple[str, dict[str, Any]]:
    name = entry.get("id")
    if not _is_session(name):
        raise invalid("sessions", "A session's id is made of letters, digits and -, at most 64 of them.")
    return str(name), {
        "username": _username(entry),
        "address": _address(entry),
        "fingerprint": _fingerprint(entry, empty=True),
        "started_at": _moment(entry.get("started_at"), now),
    }


def _is_session(name: object) -> bool:
    return isinstance(name, str) and _SESSION.fullmatch(name) is not None


def _use(entry: Mapping[str, Any], now: datetime) -> tuple[str, datetime, str]:
    return _fingerprint(entry), _moment(entry.get("at"), now), _address(entry)


def _login(entry: Mapping[str, Any], now: datetime) -> logins.Login:
    key = _fingerprint(entry, empty=True)
    return logins.Login(key, _username(entry), _address(entry), _moment(entry.get("at"), now))


def _entries(value: object, field: str, most: int) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or len(value) > most or not all(isinstance(entry, Mapping) for entry in value):
        raise invalid(field, f"This takes a list of at most {most} objects.")
    return value


def _username(entry: Mapping[str, Any]) -> str:
    # Not Keyrack's own rule for names: a host may have accounts that Keyrack would not create, in any script.
    name = entry.get("user")
    if not isinstance(name, str) or not name.strip():
        raise invalid("user", "This is not the name of an account.")
    name = printable(name)
    return name if len(name) <= LONGEST_ACCOUNT else f"{name[: LONGEST_ACCOUNT - 1]}…"


def _address(entry: Mapping[str, Any]) -> str:
    address = _read_address(str(entry.get("address")))
    if not address:
        raise invalid("address", "This is not an IP address.")
    return address


@lru_cache(maxsize=10_000)
def _read_address(text: str) -> str:
    """An IP address in its canonical form, "" for what is none."""
    try:
        address = str(ipaddress.ip_address(text)) if len(text) <= LONGEST_ADDRESS else ""
    except ValueError:
        return ""
    return address if len(address) <= LONGEST_ADDRESS else ""


def _fingerprint(entry: Mapping[str, Any], *, empty: bool = False) -> str:
    value = entry.get("fingerprint")
    if empty and value == "":
        return ""
    if not isinstance(value, str) or not is_fingerprint(value):
        raise invalid("fingerprint", "This is not a SHA-256 fingerprint.")
    return value


def _moment(value: object, now: datetime) -> datetime:
    try:
        if not isinstance(value, str) or not _MOMENT.fullmatch(value):
            raise ValueError(value)
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise invalid("at", "A time is written like 2026-11-22T16:00:00Z.") from None
    # A host whose clock is ahead must not make a key look used in the future.
    return min(moment, now)
