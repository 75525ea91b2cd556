"""The agent's state folder: its enrolment, the last accepted document, its status; must decide nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from typing import Any, Dict, NamedTuple, Optional, Tuple

from keyrack.agent.system.folder import PRIVATE_FILE, PRIVATE_FOLDER, Folder, is_append_only, mount_point

DEFAULT_STATE_FOLDER = "/var/lib/keyrack-agent"
DEFAULT_KEYS_FOLDER = "/etc/ssh/keyrack/keys"
DEFAULT_REVOKED_KEYS = "/etc/ssh/keyrack/revoked_keys"

_ENROLMENT, _ACCEPTED, _STATUS, _LOCK = "enrolment.json", "accepted.json", "status.json", "lock"
_PROBE_SECONDS = 2.0  # a check whether an agent runs (in_use, the installation) holds the lock for less than this
_PAUSE = 0.02
_REMEDIES = {
    _ENROLMENT: "enrol this host again with --replace",
    _ACCEPTED: "the next document from the service replaces it",
    _STATUS: "the running agent makes it again",
    "local.json": "write it again, as the manual has it",
}
_LEAST_FREE = 64 * 1024
_LARGEST_FILE = 256 * 1024 * 1024


class StateProblem(Exception):
    """Something in the state folder cannot be used; the words say what to do."""


class Enrolment(NamedTuple):
    """Which host this is, for which service, and where its files go. secret: authenticates it to the service."""

    url: str
    host: str
    secret: str
    signing_key: str
    server_name: str
    keys_folder: str
    revoked_keys: str
    sshd_config: Optional[str] = None
    ca_file: Optional[str] = None
    proxy: Optional[str] = None


class Accepted(NamedTuple):
    """The last document that passed every check, with its signature, both as they were received."""

    document: str
    signature: str


class Status(NamedTuple):
    """The agent's status, for `keyrack-agent status`. Times are seconds since 1970; 0: never.

    revision: of the files on this host; service: "ok", or words about the last failed contact; problems: in words;
    confirmed_at: when the service last confirmed the document in force, or sent a newer one; service_at: the estimate
    of the service's time when this was saved; since_boot: service_at less the seconds since the boot then; boot: the id
    of that boot; confirmed_since_boot: when the service confirmed, in seconds since that boot, 0 where it was before
    it; ends_earlier: how many seconds earlier ends are written in the files, as this host's clock is behind the
    service's.
    """

    revision: int = 0
    applied_at: float = 0.0
    contact_at: float = 0.0
    service: str = ""
    problems: Tuple[str, ...] = ()
    confirmed_at: float = 0.0
    service_at: float = 0.0
    since_boot: float = 0.0
    boot: str = ""
    ends_earlier: int = 0
    confirmed_since_boot: float = 0.0


class StateFolder:
    """The agent's own folder, open. Methods that write may raise OSError."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    @classmethod
    def open(cls, path: str, *, create: bool = False) -> StateFolder:
        """Open the folder at an absolute path, 0700. Raises FolderProblem or OSError."""
        return cls(Folder.open(path, PRIVATE_FOLDER, create=create))

    def lock(self) -> None:
        """Be the only agent that uses this folder, until the process ends. Raises StateProblem where another one does.

        A record lock: a child of a killed agent does not hold it, as it would with flock(2) or an open file
        description's lock. It is lost when this process closes any descriptor of the file.
        """
        descriptor = os.open(os.path.join(self.folder.path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        until = time.monotonic() + _PROBE_SECONDS
        while True:
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() < until:
                    time.sleep(_PAUSE)
                    continue
                os.close(descriptor)
                raise StateProblem(f"another agent is at work in {self.folder.path}; stop it first") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))

    def holder(self) -> Optional[int]:
        """The pid of the process that holds the lock; None where none does. May raise OSError."""
        if not self.in_use():
            return None
        with open(os.path.join(self.folder.path, _LOCK), encoding="ascii", errors="replace") as file:
            noted = file.read().strip()
        return int(noted) if noted.isdecimal() else None

    def in_use(self) -> bool:
        """Whether an agent in another process uses this folder now. Must not be called by a process that has the lock,
        which it would lose.

        May raise OSError.
        """
        try:
            descriptor = os.open(os.path.join(self.folder.path, _LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def full(self) -> Tuple[str, ...]:
        """Words where the folder cannot be written: no space, a read-only file system, or an immutable or append-only
        file; empty where it can.
        """
        status = os.statvfs(self.folder.path)
        place = mount_point(self.folder.path)
        if status.f_flag & os.ST_RDONLY:
            return (f"the file system at {place} is read-only, so {self.folder.path} cannot be written",)
        free = status.f_bfree if os.geteuid() == 0 else status.f_bavail
        if free * status.f_frsize < _LEAST_FREE or (status.f_files and not status.f_ffree):
            return (f"no space left on the file system at {place} for {self.folder.path}",)
        # Not even root can write to immutable or append-only files (chattr(1)).
        names = (os.path.join(self.folder.path, name) for name in sorted(self.folder.names()))
        for path in (self.folder.path, *names):
            if not os.access(path, os.W_OK):
                return (f"{path} cannot be written; is it immutable (lsattr -d {path})?",)
            if is_append_only(path):
                return (f"{path} cannot be written: it is append-only (chattr -a {path})",)
        return ()

    def enrolment(self) -> Optional[Enrolment]:
        """The enrolment; None before there is one. Raises StateProblem for a damaged file."""
        fields = self.load(_ENROLMENT)
        if fields is None:
            return None
        # A newer agent may have saved more fields; an older one that replaces it must still be able to read the rest.
        known = {name: value for name, value in fields.items() if name in Enrolment._fields}
        try:
            return Enrolment(**known)
        except TypeError:
            raise self._damaged(_ENROLMENT) from None

    def enrol(self, enrolment: Enrolment) -> None:
        """Save the enrolment, and forget the document and status of an earlier one."""
        for name in (_ACCEPTED, _STATUS):
            if name in self.folder.names():
                self.folder.remove(name)
        self.save(_ENROLMENT, enrolment._asdict())

    def accepted(self) -> Optional[Accepted]:
        """The last accepted document; None when there is none. Raises StateProblem for a damaged file."""
        fields = self.load(_ACCEPTED)
        if fields is None:
            return None
        document, signature = fields.get("document"), fields.get("signature")
        if not isinstance(document, str) or not isinstance(signature, str):
            raise self._damaged(_ACCEPTED)
        return Accepted(document, signature)

    def accept(self, accepted: Accepted) -> None:
        """Save a document durably; on a full disk in the space that keep_room() reserved. May raise OSError."""
        self.save(_ACCEPTED, accepted._asdict(), reserve=self.folder)

    def keep_room(self) -> None:
        """Reserve space for the next document, which may remove keys, in case the disk fills up."""
        with contextlib.suppress(OSError):
            self.folder.keep_reserve(os.stat(os.path.join(self.folder.path, _ACCEPTED)).st_size)

    def status(self) -> Status:
        """The last saved status; damaged fields have their defaults."""
        try:
            noted = self.load(_STATUS) or {}
        except StateProblem:
            return Status()
        usual = Status()._asdict()
        fields = {name: value for name, value in noted.items() if name in usual and _is_alike(value, usual[name])}
        return Status(**{**fields, "problems": tuple(fields.get("problems", ()))})

    def note(self, status: Status) -> None:
        """Save the status; it may be lost in a power cut."""
        self.save(_STATUS, status._asdict(), durable=False)

    def has(self, name: str) -> bool:
        """Whether there is a note of this name."""
        return name in self.folder.names()

    def load(self, name: str) -> Optional[Dict[str, Any]]:
        """The fields of one note; None where there is none. Raises StateProblem for a damaged one."""
        try:
            fields = json.loads(self.folder.read(name, _LARGEST_FILE))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateProblem(f"{os.path.join(self.folder.path, name)} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise self._damaged(name)
        return fields

    def save(
        self, name: str, fields: Dict[str, Any], *, durable: bool = True, reserve: Optional[Folder] = None
    ) -> None:
        """Save one note. durable: sync it before this returns; reserve: see Folder.write. May raise OSError."""
        data = json.dumps(fields, sort_keys=True).encode("ascii")
        self.folder.write(name, data, PRIVATE_FILE, durable=durable, reserve=reserve)
        if durable:
            self.folder.sync()

    def _damaged(self, name: str) -> StateProblem:
        remedy = _REMEDIES.get(name, "take it away, and look at what keyrack-agent doctor says")
        return StateProblem(f"{os.path.join(self.folder.path, name)} is damaged; {remedy}")


def _is_alike(value: Any, usual: Any) -> bool:
    """Whether a field that was read is of the same type as its default."""
    if isinstance(usual, tuple):
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if isinstance(usual, float):
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, type(usual))
