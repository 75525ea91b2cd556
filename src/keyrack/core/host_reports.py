"""What a host tells beside its revision: who is in, which keys were used; must believe nothing about other hosts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from keyrack.core.work import Work
from keyrack.errors import invalid
from keyrack.model import Server
from keyrack.store import host_reports

MOST_SESSIONS = 10_000
MOST_USES = 10_000

_SESSION = re.compile(r"[A-Za-z0-9-]{1,64}")
_ACCOUNT = re.compile(r"[\x21-\x7e]{1,32}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


def take(work: Work, server: Server, told: Mapping[str, Any]) -> None:
    """Store the sessions and uses of a report, where it has any. Raises Refusal INVALID, and stores nothing then.

    sessions: all that are live now; last_used: accepted logins since the report before, at most one a key.
    """
    if "sessions" in told:
        listed = _entries(told["sessions"], "sessions", MOST_SESSIONS)
        found = {}
        for entry in listed:
            name = entry.get("id")
            if not isinstance(name, str) or not _SESSION.fullmatch(name):
                raise invalid("sessions", "A session's id is made of letters, digits and -, at most 64 of them.")
            found[name] = {
                "username": _username(entry),
                "address": _address(entry),
                "fingerprint": _fingerprint(entry, empty=True),
                "started_at": _moment(entry.get("started_at"), work.now),
            }
        host_reports.replace_sessions(work.connection, server.id, found)
    if "last_used" in told:
        uses = [
            (_fingerprint(entry), _moment(entry.get("at"), work.now), _address(entry))
            for entry in _entries(told["last_used"], "last_used", MOST_USES)
        ]
        # A host may only speak of keys that are its workspace's: a key's uses are shown to who has the key.
        mine = host_reports.known_fingerprints(work.connection, server.workspace_id, (use[0] for use in uses))
        host_reports.note_uses(work.connection, server.id, [use for use in uses if use[0] in mine])


def _entries(value: object, field: str, most: int) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or len(value) > most or not all(isinstance(entry, Mapping) for entry in value):
        raise invalid(field, f"This takes a list of at most {most} objects.")
    return value


def _username(entry: Mapping[str, Any]) -> str:
    # Not our own grammar of names: a host may have accounts that Keyrack would not make.
    name = entry.get("user")
    if not isinstance(name, str) or not _ACCOUNT.fullmatch(name):
        raise invalid("user", "This is not the name of an account.")
    return name


def _address(entry: Mapping[str, Any]) -> str:
    try:
        return str(ipaddress.ip_address(str(entry.get("address"))))
    except ValueError:
        raise invalid("address", "This is not an IP address.") from None


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
