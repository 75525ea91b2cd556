"""Asks the running sshd for its port and its host keys, so that people can check the host key at their first login;
changes nothing.
"""

from __future__ import annotations

import time
from typing import List, NamedTuple, Optional, Tuple

from keyrack.agent.sshd import listening
from keyrack.agent.sshd.listening import Listener
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.system import programs
from keyrack.ssh import public_key

ASK_AGAIN_SECONDS = 3600.0
_ANSWER_SECONDS = 3
_ALL_SECONDS = 15.0
_MAX = 16


class SshdHostKeys(NamedTuple):
    """The host keys that sshd shows on a port, as type and base64, sorted."""

    port: int
    keys: Tuple[str, ...]


class HostKeyScan:
    """The host keys of one sshd. It is asked again after a restart, a change of its settings, or ASK_AGAIN_SECONDS."""

    def __init__(self, sshd: Sshd) -> None:
        self.port: Optional[int] = None  # where people reach it, whether it answered or not; None where that is unknown
        self._sshd = sshd
        self._asked: Optional[Tuple[Tuple[object, ...], Tuple[Listener, ...]]] = None
        self._asked_at = 0.0
        self._shown: Optional[SshdHostKeys] = None

    def keys(self) -> Optional[SshdHostKeys]:
        """The host keys that the running sshd shows; None where they are unknown."""
        signature = self._sshd.signature()
        if self._asked is not None and time.monotonic() - self._asked_at < ASK_AGAIN_SECONDS:
            before, listeners = self._asked
            if before == signature and listening.still(listeners):
                return self._shown
        listeners = self._sshd.listeners()
        where = self._note_port(listeners)
        self._asked, self._asked_at = (signature, listeners), time.monotonic()
        for one in where if listeners else ():
            shown = ask(*one.near)
            if shown is not None:
                # No answer keeps the keys that were shown last.
                self._shown = shown
                break
        return self._shown

    def ensure_port(self) -> None:
        """Find the port where it is not known yet; quick, as sshd is not asked for keys."""
        if self.port is None:
            self._note_port(self._sshd.listeners())

    def _note_port(self, listeners: Tuple[Listener, ...]) -> List[Listener]:
        # While sshd does not listen, the last port stays. Where listening sockets cannot be seen, its settings tell.
        where = listening.by_reachability(listeners or (() if listening.can_be_seen() else self._sshd.configured()))
        self.port = where[0].port if where else self.port
        return where


def ask(host: str, port: int) -> Optional[SshdHostKeys]:
    """The host keys that an sshd shows at an address of this machine; None where it shows none."""
    program = programs.find("ssh-keyscan")
    if program is None:
        return None
    asked = [program, "-T", str(_ANSWER_SECONDS), "-p", str(port), host]
    keys = set()
    for line in programs.run(asked, seconds=_ALL_SECONDS).output.split("\n"):
        _, _, rest = line.partition(" ")
        try:
            keys.add(public_key.parse(rest).canonical)
        except public_key.KeyProblem:
            continue  # a comment, or an unknown type of key
    return SshdHostKeys(port, tuple(sorted(keys)[:_MAX])) if keys else None
