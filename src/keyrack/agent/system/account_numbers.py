"""Notices by the user id that a name with keys belongs to another account than before; it changes no account.

Keys are given to names. A new account that gets the name of a removed one gets its keys too, so an administrator should
be told.
"""

from __future__ import annotations

import contextlib
from typing import Dict, Iterable, List

from keyrack.agent.state import StateFolder, StateProblem
from keyrack.agent.system import lookup

NOTE = "account_numbers.json"


class AccountNumbers:
    """The user id of each account that has keys in the document in force."""

    def __init__(self, state: StateFolder) -> None:
        self._state_folder = state
        self._known: Dict[str, int] = {}
        self._changed: Dict[str, int] = {}
        with contextlib.suppress(StateProblem):  # a damaged note is made anew
            noted = (state.load(NOTE) or {}).get("numbers")
            if isinstance(noted, dict):
                self._known = {str(name): number for name, number in noted.items() if isinstance(number, int)}

    def renumbered(self, names: Iterable[str]) -> List[str]:
        """A sentence for each of these names that has another user id than before, at each call until delivered(). The
        id of an account that is missing now is kept: the account may come back.
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
        """The service has received what renumbered() answered last."""
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
