"""Keeps each accepted login until the service has received it; it reads no log and writes no file."""

from __future__ import annotations

import secrets
from typing import Any, Dict, Iterable, List, Mapping, Optional

from keyrack.agent.sessions import last_uses
from keyrack.agent.sessions.login_log import LoggedLogin

MAX = 1000  # logins that are kept; of further ones only the number is


class UnreportedLogins:
    """A named batch of logins, and those that came since: a batch does not change until the service has answered it, so
    that the service takes each once.
    """

    def __init__(self, remembered: object = None) -> None:
        self._name = ""
        self._batch: List[Dict[str, str]] = []
        self._more = 0
        self._new: List[Dict[str, str]] = []
        self._new_more = 0
        if isinstance(remembered, dict):
            self._load(remembered)

    def __bool__(self) -> bool:
        return bool(self._name or self._new)

    def add(self, logins: Iterable[LoggedLogin]) -> None:
        """Add accepted logins, oldest first."""
        for login in logins:
            if len(self._batch) + len(self._new) < MAX:
                self._new += last_uses.as_reported([login])
            else:
                self._new_more += 1

    def batch(self, anybodys: bool, most: int = MAX) -> Optional[Dict[str, Any]]:
        """The batch as a report has it: the same one until answered(), refused() or leave_out(); None where there are
        no logins.

        anybodys: every account can write to the log they come from; most: so many logins at most, the oldest first.
        """
        if not self._name:
            if not self._new:
                return None
            self._name = secrets.token_hex(8)
            self._batch, self._new = self._new[:most], self._new[most:]
            if not self._new:
                self._more, self._new_more = self._new_more, 0
        return {"batch": self._name, "entries": self._batch, "more": self._more, "anybodys": anybodys}

    def answered(self) -> None:
        """The service has received the batch."""
        self._name, self._batch, self._more = "", [], 0

    def refused(self) -> None:
        """The service refused the batch: its logins wait for smaller batches."""
        self._new, self._new_more = self._batch + self._new, self._more + self._new_more
        self.answered()

    def leave_out(self) -> None:
        """The service refuses this batch however small it is: drop it, and report only its number with the next one."""
        self._new_more += len(self._batch) + self._more
        self.answered()

    def save(self) -> Dict[str, Any]:
        """The logins as JSON, for a file."""
        return {
            "name": self._name,
            "batch": self._batch,
            "more": self._more,
            "new": self._new,
            "new_more": self._new_more,
        }

    def _load(self, fields: Mapping[str, Any]) -> None:
        """Take what save() answered; values of another shape are left out."""
        batch, new = _sound(fields.get("batch")), _sound(fields.get("new"))
        name = fields.get("name")
        if isinstance(name, str) and name and batch:
            self._name, self._batch, self._more = name, batch, _count(fields.get("more"))
        self._new, self._new_more = new, _count(fields.get("new_more"))


def _sound(entries: object) -> List[Dict[str, str]]:
    if not isinstance(entries, list):
        return []
    return [one for one in entries[:MAX] if isinstance(one, dict) and all(isinstance(v, str) for v in one.values())]


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
