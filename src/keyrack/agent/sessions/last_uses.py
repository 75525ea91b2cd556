"""Remembers when each key was last used here until that is reported; it writes nothing and reads no log."""

from __future__ import annotations

from typing import Any, Collection, Dict, Iterable, List, Tuple

from keyrack.agent.sessions.login_log import LoggedLogin
from keyrack.agent.sessions.sessions import moment_text

MAX = 10_000  # keys; a host where more are in use between two reports loses some of these times


class Uses:
    """The last accepted login of each key that is not reported yet: one entry per key, however often it is used."""

    def __init__(self) -> None:
        self._last: Dict[str, LoggedLogin] = {}

    def __bool__(self) -> bool:
        return bool(self._last)

    def add(self, logins: Iterable[LoggedLogin]) -> None:
        """Add accepted logins, oldest first."""
        for login in logins:
            if login.fingerprint and (login.fingerprint in self._last or len(self._last) < MAX):
                self._last[login.fingerprint] = login

    def take(self, most: int = MAX) -> List[LoggedLogin]:
        """Remove and answer up to `most` logins to report; put_back() where the report fails."""
        taken = list(self._last.values())[:most]
        for login in taken:
            del self._last[login.fingerprint]
        return taken

    def put_back(self, logins: Iterable[LoggedLogin]) -> None:
        """Keep these again, which were not reported after all; newer logins of the same keys win."""
        self._last = {**{login.fingerprint: login for login in logins}, **self._last}


def as_reported(logins: Iterable[LoggedLogin], break_glass: Collection[Tuple[str, str]] = ()) -> List[Dict[str, Any]]:
    """Logins as a report has them. break_glass: pairs of an account and the fingerprint of a break-glass key."""
    return [
        {
            "fingerprint": login.fingerprint,
            "at": moment_text(login.at),
            "address": login.address,
            "user": login.user,
            **({"break_glass": True} if (login.user, login.fingerprint) in break_glass else {}),
        }
        for login in logins
    ]
