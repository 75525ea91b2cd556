"""Remembers when each key was last used here until the service knows; it writes nothing and reads no log."""

from __future__ import annotations

from typing import Any, Collection, Dict, Iterable, List, Tuple

from keyrack.agent.sessions.login_log import LoggedLogin
from keyrack.agent.sessions.sessions import moment_text

MOST = 10_000  # keys; a host where more are in use between two reports loses some of these times


class Uses:
    """The last accepted login of each key that is not told yet: one entry a key, however often it is used."""

    def __init__(self) -> None:
        self._last: Dict[str, LoggedLogin] = {}

    def __bool__(self) -> bool:
        return bool(self._last)

    def add(self, logins: Iterable[LoggedLogin]) -> None:
        """Take in accepted logins, oldest first."""
        for login in logins:
            if login.fingerprint and (login.fingerprint in self._last or len(self._last) < MOST):
                self._last[login.fingerprint] = login

    def take(self, most: int = MOST) -> List[LoggedLogin]:
        """What is to be told, once, of so many keys; put_back() when nobody listened."""
        taken = list(self._last.values())[:most]
        for login in taken:
            del self._last[login.fingerprint]
        return taken

    def put_back(self, logins: Iterable[LoggedLogin]) -> None:
        """These were not told after all; what came since counts."""
        self._last = {**{login.fingerprint: login for login in logins}, **self._last}


def as_reported(logins: Iterable[LoggedLogin], break_glass: Collection[Tuple[str, str]] = ()) -> List[Dict[str, Any]]:
    """As reports have it; break_glass: accounts with fingerprints of break-glass keys."""
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
