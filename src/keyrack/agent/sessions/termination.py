"""Ends sessions: every process that runs in one login or outlived its connection, and no other; it does not decide
which sessions end.

Killing a session's sshd alone leaves the user's command running. So all processes of the login (session_processes.py)
are stopped first, as a stopped process starts no new one. They are searched again until no more are found, and only
then killed.

Not found are: a process that left the line of parents on a host without audit sessions (pam_loginuid) and without
systemd-logind, and was started with an environment emptied on purpose; and processes that the user had cron, at or a
systemd unit start.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from typing import FrozenSet, Sequence, Set

from keyrack.agent.sessions.session_processes import LoginSession, SessionMarks, processes_of

_MAX_ROUNDS = 50
_GRACE_SECONDS = 0.5


def end(session: LoginSession, listeners: FrozenSet[int], others: Sequence[LoginSession]) -> int:
    """End a session. Answers how many processes were ended, 0 where it had none left.

    listeners: the pids of sshd's listening processes; others: the other sessions. Both are spared.
    """
    marks = SessionMarks(session, listeners)
    stopped: Set[int] = set()
    for _ in range(_MAX_ROUNDS):
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
    # Give sshd a moment to close the PAM session and the login records itself.
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
