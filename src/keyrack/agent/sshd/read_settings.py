"""Tells whether the running sshd has read its settings as they stand on disk; it asks files and the kernel alone.

sshd reads them when it starts and when it is told to (SIGHUP), and then it opens new sockets and writes its PidFile;
one that systemd hands its socket is another process then. In between it goes on by what it read, connections included,
whatever its files and `sshd -T` say.
"""

from __future__ import annotations

import contextlib
import os
from typing import Set, Tuple

from keyrack.agent.sshd.listening import Listener
from keyrack.agent.sshd.settings import SettingLine, Sshd, SshdProblem

UNREAD = (
    "the sshd that runs has not read these settings since they changed, and goes on by what it read before; have it "
    "read them: systemctl reload ssh"
)


class ReadSettings:
    """What one sshd has read, as far as that was seen."""

    def __init__(self) -> None:
        self._listeners: Tuple[Listener, ...] = ()
        self._files: Tuple[object, ...] = ()
        self._lines: Tuple[SettingLine, ...] = ()
        self._began_unread = False
        self._changed = False

    @property
    def known(self) -> bool:
        """Whether what the running sshd reads was looked at before its settings changed."""
        return not self._began_unread

    def unread(self, sshd: Sshd) -> bool:
        """Whether it runs by other settings than stand on disk; False where that cannot be seen. sshd: always the same
        one, by whichever object.
        """
        listeners = tuple(one for one in sshd.listeners() if one.sshds)
        if not listeners:
            self._listeners = ()
            return False
        # Files first: one that changes meanwhile is seen the next time.
        files = sshd.signature()
        if not _held_by_sshd(listeners) & _held_by_sshd(self._listeners):
            self._listeners, self._files, self._changed = listeners, files, False
            self._lines = tuple(sshd.lines())
            self._began_unread = changed_since_read(sshd, listeners)
        elif files != self._files:
            # Other bytes, times or owners are no other settings.
            self._files, self._changed = files, tuple(sshd.lines()) != self._lines
        return self._began_unread or self._changed


def _held_by_sshd(listeners: Tuple[Listener, ...]) -> Set[Tuple[str, int]]:
    """Each socket with each sshd that holds it: none is left once all have read their settings anew."""
    return {(one.inode, pid) for one in listeners for pid in one.sshds}


def changed_since_read(sshd: Sshd, listeners: Tuple[Listener, ...]) -> bool:
    """Whether a file of settings was written after the sshd that listens read them, by the time of its PidFile, which
    it writes then; False where that file is not its own.
    """
    with contextlib.suppress(SshdProblem, OSError, ValueError):
        path = sshd.effective().one("pidfile")
        with open(path, encoding="ascii") as file:
            written, pid = os.fstat(file.fileno()).st_mtime_ns, int(file.read(32))
        if any(pid in one.sshds for one in listeners):
            return any(changed > written for changed in sshd.files_changed_at())
    return False
