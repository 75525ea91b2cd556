"""Notices that a name with keys stands for another account than before, by its number; it changes no account.

Keys are given to names. Whoever gets the name of an account that was removed gets its keys with it, which somebody
should hear of.
"""

from __future__ import annotations

import contextlib
from typing import Dict, Iterable, List

from keyrack.agent.state import StateFolder, StateProblem
from keyrack.agent.system import lookup

NOTE = "account_numbers.json"


class AccountNumbers:
    """The number of each account that has keys of the document in force."""

    def __init__(self, state: StateFolder) -> None:
        self._state_folder = state
        self._known: Dict[str, int] = {}
        self._changed: Dict[str, int] = {}
        with contextlib.suppress(StateProblem):  # a damaged note is made anew
            noted = (state.load(NOTE) or {}).get("numbers")
            if isinstance(noted, dict):
                self._known = {str(name): number for name, number in noted.items() if isinstance(number, int)}

    def look(self, names: Iterable[str]) -> List[str]:
        """Words for each of these names that has another number than before, until delivered(). What is not there now
        is remembered: it may come again.
        """
        known: Dict[str, int] = {}
        self._changed = {}
        words = []
        for name in names:
            account, before = lookup.account(name), self._known.get(name)
            if before is not None:
                known[name] = before
            elif account is not None:
                known[name] = account.pw_uid
            if account is not None and account.pw_uid != known[name]:
                self._changed[name] = account.pw_uid
                words.append(_words(name, known[name], account.pw_uid))
        self._keep(known)
        return words

    def delivered(self) -> None:
        """The service has what look() answered last."""
        self._keep({**self._known, **self._changed})

    def _keep(self, known: Dict[str, int]) -> None:
        if known != self._known:
            self._known = known
            with contextlib.suppress(OSError):
                self._state_folder.save(NOTE, {"numbers": known}, durable=False)


def _words(name: str, before: int, number: int) -> str:
    return (
        f"the account {name} has the number {number} now, and had {before}: the keys that Keyrack has for this name "
        "count for it; if it is somebody else's than before, take them away"
    )
