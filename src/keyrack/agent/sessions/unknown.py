"""Says in words why it may be unknown who is logged in: sshd logs no logins, or not where they are read; it mends
nothing.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import Dict, FrozenSet, Iterable, Optional

from keyrack.agent.sessions.login_log import SYSLOG_FILES, Log
from keyrack.agent.sshd.settings import Sshd, SshdProblem
from keyrack.agent.system import processes
from keyrack.protocol.words import count

LOG_DELAY_SECONDS = 15.0  # how long after a login its line of the log may come
ASK_SECONDS = 600.0  # between two questions to sshd
_NAMES_FIRST_KEYS = ("VERBOSE", "DEBUG", "DEBUG1", "DEBUG2", "DEBUG3")
_SILENT = ("SILENT", "QUIET", "FATAL", "ERROR")  # the first is what `sshd -T` calls QUIET
# The title of a connection's own process once it is logged in: the account, with its terminal or none. Before that, and
# where the process only monitors another one, a word in brackets follows.
_IN = re.compile(r"sshd(?:-session)?: [^\[\]/]+(?:@\S+)?")


class UnknownSessions:
    """Why sessions may be unknown. why() is called again and again; sshd itself is asked every ASK_SECONDS."""

    def __init__(self, sshd: Sshd, log: Optional[Log]) -> None:
        self._sshd = sshd
        self._log = log
        self._seen: Dict[int, float] = {}
        self._asked_at = float("-inf")
        self._level = ""
        self._asks_for_more = False

    def why(self, strangers: Iterable[int], keyless: int = 0) -> str:
        """Why it may be unknown who is logged in, in words; empty where nothing suggests it. strangers: pids of sshd's
        connections that no line of the log names; keyless: how many live sessions the log names no key of.
        """
        now = time.monotonic()
        if now - self._asked_at >= ASK_SECONDS:
            self._asked_at, self._level, self._asks_for_more = now, self._log_level(), self._more_than_a_key()
        known = self._seen
        self._seen = {pid: known.get(pid, now) for pid in strangers}
        if self._log is None:
            return f"who is in is not known: sshd's log was not found (the journal, {', '.join(SYSLOG_FILES)})"
        if self._level in _SILENT:
            level = "QUIET" if self._level == "SILENT" else self._level
            return f"who is in is not known: sshd logs no logins (LogLevel {level}; INFO does)"
        late = [pid for pid, since in self._seen.items() if now - since >= LOG_DELAY_SECONDS and is_in(pid)]
        if not late:
            return self._first_keys(keyless)
        return (
            f"who is in by {count(len(late), 'connection')} of sshd is not known, as its log does not say it: "
            "it logs elsewhere "
            "(keyrack-agent run --sshd-log FILE), or what it logs is left out"
        )

    def _first_keys(self, keyless: int) -> str:
        """Why the key may be unknown of sessions that needed a key and another proof, in words; empty if it is not."""
        if not keyless or not self._asks_for_more or self._level in _NAMES_FIRST_KEYS:
            return ""
        return (
            "by which key somebody is in may not be known, and the session not end with it: "
            "AuthenticationMethods ask for more than a key, and sshd logs that key at LogLevel VERBOSE alone"
        )

    def _more_than_a_key(self) -> bool:
        with contextlib.suppress(SshdProblem, OSError):
            said = [line.values for line in self._sshd.lines() if line.keyword == "authenticationmethods"]
            return any("publickey" in method and "," in method for values in said for method in values)
        return False

    def _log_level(self) -> str:
        try:
            return self._sshd.effective().one("loglevel").upper()
        except (SshdProblem, OSError):
            return ""


def is_in(pid: int) -> bool:
    """Whether a connection is logged in, by the titles of its process and that one's children."""
    family: FrozenSet[int] = frozenset((pid, *processes.children(pid)))
    return any(_IN.fullmatch(processes.title(one).strip()) for one in family)
