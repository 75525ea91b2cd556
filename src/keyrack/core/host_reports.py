"""What a host tells beside its revision: who is in, which keys were used; must believe nothing about other hosts.

An entry that cannot be what it should be is left out; the others of its report count.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from keyrack.core.work import Work
from keyrack.errors import Refusal, invalid
from keyrack.model import Server
from keyrack.ssh.printable import printable
from keyrack.store import host_reports

MOST_SESSIONS = 10_000
MOST_USES = 10_000
MOST_PROBLEMS, LONGEST_PROBLEM = 20, 500
LONGEST_ACCOUNT, LONGEST_ADDRESS = 32, 64

_Read = TypeVar("_Read")

_SESSION = re.compile(r"[A-Za-z0-9-]{1,64}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True, slots=True)
class Logins:
    """Who is in, by the session's name, and which keys were used; None: the report does not say.

    live: names of all sessions that are not over, also of those of which nothing else could be read.
    """

    sessions: Mapping[str, Mapping[str, Any]] | None
    live: frozenset[str]
    uses: Sequence[tuple[str, datetime, str]] | None


def read(told: Mapping[str, Any], now: datetime) -> Logins:
    """The sessions and uses of a report, judged; Raises Refusal INVALID for what is no list of objects.

    sessions: all that are live now; last_used: accepted logins since the report before, at most one a key. To be called
    before the transaction: a host may tell of thousands, and everybody's writes would wait for that.
    """
    sessions, live, uses = None, frozenset[str](), None
    if "sessions" in told:
        listed = _entries(told["sessions"], "sessions", MOST_SESSIONS)
        # One that is known stays, even where what else is told of it now cannot be: it is not over.
        live = frozenset(str(entry["id"]) for entry in listed if _is_session(entry.get("id")))
        sessions = dict(_sound(listed, lambda entry: _session(entry, now)))
    if "last_used" in told:
        listed = _entries(told["last_used"], "last_used", MOST_USES)
        uses = _sound(listed, lambda entry: _use(entry, now))
    return Logins(sessions, live, uses)


def take(work: Work, server: Server, logins: Logins) -> None:
    """Store the sessions and uses of a report, where it has any."""
    if logins.sessions is not None:
        host_reports.replace_sessions(work.connection, server.id, logins.sessions, live=logins.live)
    if logins.uses is not None:
        # A host may only speak of keys that are its workspace's: a key's uses are shown to who has the key.
        told = (use[0] for use in logins.uses)
        mine = host_reports.known_fingerprints(work.connection, server.workspace_id, told)
        host_reports.note_uses(work.connection, server.id, [use for use in logins.uses if use[0] in mine])


def problems(told: Mapping[str, Any]) -> list[str] | None:
    """What a report says is not as asked, in words; None: it does not say."""
    said = told.get("problems")
    if not isinstance(said, list):
        return None
    return [problem[:LONGEST_PROBLEM] for problem in said if isinstance(problem, str)][:MOST_PROBLEMS]


def _sound(listed: list[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], _Read]) -> list[_Read]:
    """What could be read, of all entries."""
    found = []
    for entry in listed:
        try:
            found.append(read(entry))
        except Refusal:
            continue
    return found


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


def _entries(value: object, field: str, most: int) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or len(value) > most or not all(isinstance(entry, Mapping) for entry in value):
        raise invalid(field, f"This takes a list of at most {most} objects.")
    return value


def _username(entry: Mapping[str, Any]) -> str:
    # Not our own grammar of names: a host may have accounts that Keyrack would not make, in any script.
    name = entry.get("user")
    if not isinstance(name, str) or not name.strip():
        raise invalid("user", "This is not the name of an account.")
    name = printable(name)
    return name if len(name) <= LONGEST_ACCOUNT else f"{name[: LONGEST_ACCOUNT - 1]}…"


def _address(entry: Mapping[str, Any]) -> str:
    try:
        address = str(ipaddress.ip_address(str(entry.get("address"))))
    except ValueError:
        address = ""
    if not address or len(address) > LONGEST_ADDRESS:
        raise invalid("address", "This is not an IP address.")
    return address


def _fingerprint(entry: Mapping[str, Any], *, empty: bool = False) -> str:
    value = entry.get("fingerprint")
    if empty and value == "":
        return ""
    if not isinstance(value, str) or not _FINGERPRINT.fullmatch(value):
        raise invalid("fingerprint", "This is not a SHA-256 fingerprint.")
    return value


def _moment(value: object, now: datetime) -> datetime:
    try:
        found = datetime.strptime(str(value), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise invalid("at", "A time is written like 2026-11-22T16:00:00Z.") from None
    # A host whose clock is ahead must not make a key look used in the future.
    return min(found, now)
