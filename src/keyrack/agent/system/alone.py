"""Keeps two agents with different state folders from managing the same files of a host; it must not touch these files.

Each would undo what the other did, again and again. The lock of a state folder does not prevent that, as the other
agent has another one. So each managed place has a lock file, in a folder that a reboot empties. They are record locks
(fcntl(2), F_SETLK), which a child process does not inherit: children of a killed agent do not hold them. A process
loses such a lock when it closes any descriptor of the file, so nothing else in this process may open it. An agent that
ends removes its lock files; the next agent removes those of a killed one.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import itertools
import os
import time
from typing import Dict, Optional, Tuple

from keyrack.agent.sshd.listening import DEFAULT_CONFIG
from keyrack.agent.state import Enrolment, StateFolder, StateProblem
from keyrack.agent.system import local
from keyrack.agent.system.folder import PRIVATE_FILE, PRIVATE_FOLDER, Folder, FolderProblem
from keyrack.ssh.digest import sha256

_FOLDER = "/run/keyrack-agent"
_OF_AN_ACCOUNT = "/run/user/{}/keyrack-agent"  # for an agent that does not run as root
_TRIES = 50
_PAUSE = 0.02  # seconds
_LARGEST_NOTE = 8192
_MAX_LEFT = 1000  # lock files of other agents that are checked
_HELD: Dict[str, int] = {}  # descriptors by path, open until the process ends


def hold(state: StateFolder, enrolment: Enrolment, decided: local.Local) -> None:
    """Be the only agent that manages these places until the process ends. Raises StateProblem where another one does.

    Where lock files cannot be written, nothing is locked.
    """
    if not _HELD:
        # With the pid, as children may run the same exit handlers.
        atexit.register(leave, os.getpid())
        _sweep()
    for place in places(enrolment, decided):
        path = _path(place)
        if path in _HELD:
            continue
        try:
            descriptor = _locked(place)
        except (FolderProblem, OSError):
            continue
        if descriptor is None:
            raise StateProblem(
                f"another agent{_by_whom(keeper(place))} minds {place}; stop it first, take it away by its own "
                "uninstall, or enrol this one for other files"
            )
        _HELD[path] = descriptor
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, os.fsencode(state.folder.path), 0)


def places(enrolment: Enrolment, decided: local.Local) -> Tuple[str, ...]:
    """The paths that an agent so enrolled changes and another one might change too, with links resolved."""
    paths = [enrolment.keys_folder, enrolment.revoked_keys]
    if decided.drop_in is not None:
        paths.append(enrolment.sshd_config or DEFAULT_CONFIG)
    return tuple(dict.fromkeys(map(os.path.realpath, paths)))


def leave(process: int) -> None:
    """Remove the lock files that are held, for an agent that ends. process: the pid of the process that holds them."""
    if process != os.getpid():
        return
    for path, descriptor in _HELD.items():
        _unlink_own(path, descriptor)
        os.close(descriptor)
    _HELD.clear()
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(_path("")))


def _sweep() -> None:
    """Remove the lock files of agents that were killed: nobody holds these locks."""
    folder = os.path.dirname(_path(""))
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for path in [entry.path for entry in itertools.islice(entries, _MAX_LEFT)]:
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
                try:
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _unlink_own(path, descriptor)
                finally:
                    os.close(descriptor)


def _unlink_own(path: str, descriptor: int) -> None:
    """Unlink a file whose lock this process holds, unless its name is another file's by now."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            os.unlink(path)


def keeper(place: str) -> str:
    """The state folder of the agent that manages a place now; empty where none does, "?" where it is unknown. Not for
    an agent that holds locks itself.
    """
    try:
        with open(_path(place), "rb") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return os.fsdecode(file.read(_LARGEST_NOTE)) or "?"
    except OSError:
        pass
    return ""


def _by_whom(folder: str) -> str:
    return f", whose folder is {folder}," if folder not in ("", "?") else ""


def _locked(place: str) -> Optional[int]:
    """A descriptor of the lock file of a place, locked; None where another agent holds it. Raises FolderProblem or
    OSError.
    """
    path = _path(place)
    for _ in range(_TRIES):
        # At each try: an agent that ends removes the folder too.
        Folder.open(os.path.dirname(path), PRIVATE_FOLDER, create=True).close()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
        except FileNotFoundError:
            continue
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The agent that held it may have removed the file when it ended.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            time.sleep(_PAUSE)  # it may only be a call of keeper()
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def _path(place: str) -> str:
    folder = _FOLDER if os.geteuid() == 0 else _OF_AN_ACCOUNT.format(os.geteuid())
    return os.path.join(folder, sha256(os.fsencode(place)).hex()[:32])
