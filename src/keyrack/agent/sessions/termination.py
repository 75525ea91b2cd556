"""Ends sessions: everything that runs in one login or outlived its connection, and nothing else; which, others decide.

Killing a session's sshd alone leaves the user's command running. So all that belongs to the login
(session_processes.py) is stopped first (what is stopped starts nothing new), looked for again until nothing more is
found, and only then killed.

What cannot be found: a process that left the line of parents on a host without audit sessions (pam_loginuid) and
without systemd-logind, and was started with an environment emptied on purpose; and what the user had something
else start: cron, at, a systemd unit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import FrozenSet, Sequence, Set

from keyrack.agent.sessions.session_processes import LoginSession, SessionMarks, processes_of

_MOST_ROUNDS = 50
_GRACE_SECONDS = 0.5


def end(session: LoginSession, listeners: FrozenSet[int], others: Sequence[LoginSession]) -> int:
    """End a session; answers how many processes that took, 0 where it was over already.

    listeners: what sshd listens with, and others: the other sessions, which all go on.
    """
    marks = SessionMarks(session, listeners)
    stopped: Set[int] = set()
    for _ in range(_MOST_ROUNDS):
        members = processes_of(session, marks, listeners, others)
        if members <= stopped:
            break
        for pid in members - stopped:
            _signal(pid, signal.SIGSTOP)
        stopped |= members
    for pid in stopped - {session.pid}:
        _signal(pid, signal.SIGKILL)
    if not session.is_connected:
        return len(stopped)
    # sshd itself may close what PAM and the login records hold open, if it is quick about it.
    _signal(session.pid, signal.SIGTERM)
    _signal(session.pid, signal.SIGCONT)
    deadline = time.monotonic() + _GRACE_SECONDS
    while session.is_connected:
        if time.monotonic() > deadline:
            _signal(session.pid, signal.SIGKILL)
            break
        time.sleep(0.01)
    return len(stopped)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)
