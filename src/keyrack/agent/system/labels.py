"""Gives files the label that the host's SELinux policy has for their place, where it has one; it knows no policy.

A file is made beside the one it replaces, and so has the label of its folder. Below /etc/ssh that is one that sshd may
read (etc_t in the policies of Fedora and Red Hat); restorecon(8) sees to other places, and to folders that were brought
from elsewhere with labels of their own. It does nothing where SELinux is off.
"""

from __future__ import annotations

from typing import Sequence

from keyrack.agent.system import programs

_MOST = 500  # paths on one command line


def restore(paths: Sequence[str]) -> str:
    """Label these files; answers in words what went wrong, as they are in place all the same."""
    restorecon = programs.find("restorecon") if paths else None
    if restorecon is None:
        return ""
    words = []
    for at in range(0, len(paths), _MOST):
        ended = programs.run([restorecon, "-F", "--", *paths[at : at + _MOST]], seconds=30.0)
        if ended.status != 0:
            words.append(" ".join((ended.errors or ended.output).split())[:200] or "restorecon failed")
    return f"labels of files could not be set: {'; '.join(words)}" if words else ""
