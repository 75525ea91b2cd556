"""Gives files the label that the host's SELinux policy has for their path; it knows no policy itself.

A new file gets the label of its folder. Below /etc/ssh sshd may read that label (etc_t in the policies of Fedora and
Red Hat). For other paths, and for folders that were copied from elsewhere with other labels, restorecon(8) sets it. It
does nothing where SELinux is off.
"""

from __future__ import annotations

from typing import Sequence

from keyrack.agent.system import programs

_MAX = 500  # paths on one command line


def restore(paths: Sequence[str]) -> str:
    """Label these files. Answers in words what went wrong, empty for nothing."""
    restorecon = programs.find("restorecon") if paths else None
    if restorecon is None:
        return ""
    words = []
    for at in range(0, len(paths), _MAX):
        ended = programs.run([restorecon, "-F", "--", *paths[at : at + _MAX]], seconds=30.0)
        if ended.status != 0:
            words.append(" ".join((ended.errors or ended.output).split())[:200] or "restorecon failed")
    return f"labels of files could not be set: {'; '.join(words)}" if words else ""
