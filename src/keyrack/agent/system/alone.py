"""Keeps two agents with folders of their own from minding the same files of a host; it reads and writes none of these.

Each would undo what the other did, again and again. The lock of an agent's own folder does not show it, as the other
one has another folder. So each place has a lock of its own, in a folder that a reboot empties. They are record locks
(fcntl(2), F_SETLK): a child has none of them, so what a killed agent had begun does not hold them against the next
one. The process lets go of such a lock where it closes any descriptor of its file: nothing else may open it there.
An agent that ends takes its files away; what a killed one left goes when the next one begins.
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
_OF_AN_ACCOUNT = "/run/user/{}/keyrack-agent"  # the files of a folder are minded by the account that owns it
_TRIES = 50
_PAUSE = 0.02  # seconds
_LARGEST_NOTE = 8192
_MOST_LEFT = 1000  # files of others that are looked at
_HELD: Dict[str, int] = {}  # by path: descriptors, open until the process ends


def hold(state: StateFolder, enrolment: Enrolment, decided: local.Local) -> None:
    """Be the only agent that minds these places until the process ends. Raises StateProblem where another one does.

    Where there is no room for locks, nothing is held.
    """
    if not _HELD:
        # The process's own, not that of its children, which may end in the same way.
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
    """What an agent so enrolled changes on its host and another one might change, too; links resolved."""
    paths = [enrolment.keys_folder, enrolment.revoked_keys]
    if decided.drop_in is not None:
        paths.append(enrolment.sshd_config or DEFAULT_CONFIG)
    return tuple(dict.fromkeys(map(os.path.realpath, paths)))


def leave(process: int) -> None:
    """Take away what the locks that are held lie in, for an agent that ends. process: who holds them."""
    if process != os.getpid():
        return
    for path, descriptor in _HELD.items():
        _unlink_own(path, descriptor)
        os.close(descriptor)
    _HELD.clear()
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(_path("")))


def _sweep() -> None:
    """Take away the files of agents that were killed: nobody holds their locks."""
    folder = os.path.dirname(_path(""))
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for path in [entry.path for entry in itertools.islice(entries, _MOST_LEFT)]:
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
                try:
                    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _unlink_own(path, descriptor)
                finally:
                    os.close(descriptor)


def _unlink_own(path: str, descriptor: int) -> None:
    """Unlink a file whose lock is ours; another one of its name may be another's."""
    with contextlib.suppress(OSError):
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            os.unlink(path)


def keeper(place: str) -> str:
    """The folder of the agent that minds a place now; empty where none does. Not for an agent that holds one itself."""
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
    """An open file whose lock is ours; None where it is another's. Raises FolderProblem or OSError."""
    path = _path(place)
    for _ in range(_TRIES):
        # Again each time: an agent that ends takes the folder away, too.
        Folder.open(os.path.dirname(path), PRIVATE_FOLDER, create=True).close()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
        except FileNotFoundError:
            continue
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have taken it away as it went.
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BlockingIOError:
            time.sleep(_PAUSE)  # somebody may only be looking whose it is
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
