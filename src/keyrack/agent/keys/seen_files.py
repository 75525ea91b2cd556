"""Remembers over restarts which files had keys, so that a file that is only away is not reported as gone; must hold no
key.

A home that is not mounted, or an account whose directory service does not answer, is reported as not scanned.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, Iterable, Mapping, Optional, Set, Tuple

from keyrack.agent.state import StateFolder, StateProblem

NOTE = "seen.json"
AWAY_SECONDS = 30 * 86400.0  # an account that has been missing for longer counts as gone
_MAX = 20_000

Place = Tuple[str, str]  # an account and a path


class SeenFiles:
    """The files of one host that had keys. files: by account and path, the mount point of the home at that time; empty
    for a file outside of homes.
    """

    def __init__(self, state: Optional[StateFolder] = None, *, keeps: bool = True) -> None:
        """state: None to remember nothing; keeps: False to read the note but never write it."""
        self._state_folder = state
        self._keeps = keeps
        self._unknown: Dict[str, float] = {}  # accounts that are missing now, and since when
        self.files: Dict[Place, str] = {}
        self._noted: Any = None
        if state is not None:
            with contextlib.suppress(StateProblem):
                self._noted = state.load(NOTE)
                self._take(self._noted or {})

    def still_away(self, names: Iterable[str]) -> Set[str]:
        """Of these accounts, which are all missing now, those that have been missing for less than AWAY_SECONDS."""
        now = time.time()
        self._unknown = {name: min(now, self._unknown.get(name, now)) for name in names}
        return {name for name, since in self._unknown.items() if now - since < AWAY_SECONDS}

    def keep(self, files: Mapping[Place, str]) -> None:
        """Remember these files in place of the former. Where they cannot be written, the next scan tries again."""
        self.files = dict(files)
        if self._state_folder is None or not self._keeps:
            return
        places = [[*place, mount] for place, mount in sorted(files.items())]
        noted = {"files": places[:_MAX], "unknown": self._unknown}
        if noted != self._noted:
            with contextlib.suppress(OSError):
                self._state_folder.save(NOTE, noted, durable=False)
                self._noted = noted

    def _take(self, noted: Mapping[str, Any]) -> None:
        files, unknown = noted.get("files"), noted.get("unknown")
        for one in files if isinstance(files, list) else ():
            if isinstance(one, list) and len(one) == 3 and all(isinstance(text, str) for text in one):
                self.files[one[0], one[1]] = one[2]
        for name, since in unknown.items() if isinstance(unknown, dict) else ():
            if isinstance(since, (int, float)):
                self._unknown[str(name)] = float(since)
