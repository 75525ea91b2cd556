"""Tells whether the running sshd has read its settings as they are on disk; it asks only files and the kernel.

sshd reads them when it starts and at a reload (SIGHUP). Then it opens new sockets and writes its PidFile; an sshd that
gets its socket from systemd is a new process instead. In between it keeps the settings that it read, for its
connections too, whatever its files and `sshd -T` say.
"""

from __future__ import annotations

import contextlib
import os
from typing import Set, Tuple

from keyrack.agent.sshd.listening import Listener
from keyrack.agent.sshd.settings import Sshd, SshdProblem
from keyrack.agent.sshd.settings_text import SettingLine

UNREAD = (
    "the sshd that runs has not read these settings since they changed, and goes on by what it read before; have it "
    "read them: systemctl reload ssh"
)


class ReadSettings:
    """Watches whether one sshd has read its settings, from the first call of unread() on."""

    def __init__(self) -> None:
        self._listeners: Tuple[Listener, ...] = ()
        self._files: Tuple[object, ...] = ()
        self._lines: Tuple[SettingLine, ...] = ()
        self._began_unread = False
        self._changed = False

    @property
    def known(self) -> bool:
        """Whether the settings that the running sshd has read are known: they were seen before they changed on disk."""
        return not self._began_unread

    def unread(self, sshd: Sshd) -> bool:
        """Whether it runs with other settings than those on disk; False where that cannot be seen. sshd: the same one
        at every call.
        """
        listeners = tuple(one for one in sshd.listeners() if one.sshds)
        if not listeners:
            self._listeners = ()
            return False
        # The signature before the lines: a change in between shows at the next call.
        files = sshd.signature()
        if not _held_by_sshd(listeners) & _held_by_sshd(self._listeners):
            self._listeners, self._files, self._changed = listeners, files, False
            self._lines = tuple(sshd.lines())
            self._began_unread = changed_since_read(sshd, listeners)
        elif files != self._files:
            # A changed file need not mean changed settings.
            self._files, self._changed = files, tuple(sshd.lines()) != self._lines
        return self._began_unread or self._changed


def _held_by_sshd(listeners: Tuple[Listener, ...]) -> Set[Tuple[str, int]]:
    """Pairs of a socket's inode and an sshd's pid that holds it; none of them stays after all sshds have reloaded."""
    return {(one.inode, pid) for one in listeners for pid in one.sshds}


def changed_since_read(sshd: Sshd, listeners: Tuple[Listener, ...]) -> bool:
    """Whether a settings file was written after the listening sshd read it, by the time of its PidFile, which it writes
    at that moment; False where the PidFile is not this sshd's.
    """
    with contextlib.suppress(SshdProblem, OSError, ValueError):
        path = sshd.effective().one("pidfile")
        with open(path, encoding="ascii") as file:
            written, pid = os.fstat(file.fileno()).st_mtime_ns, int(file.read(32))
        if any(pid in one.sshds for one in listeners):
            return any(changed > written for changed in sshd.files_changed_at())
    return False
