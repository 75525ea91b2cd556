"""The agent's state folder: who it is, what it last accepted, how it fares; must decide nothing."""

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
_PROBE_SECONDS = 2.0  # whoever looks whether an agent runs (in_use, the installation) holds the lock so long at most
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
    """What is remembered cannot be used; the words say what to do."""


class Enrolment(NamedTuple):
    """Which host this is, for which service, and where its files go. `secret` proves it to the service."""

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
    """The last document that passed every check, with its signature: both as they came."""

    document: str
    signature: str


class Status(NamedTuple):
    """How the agent fares, for `status`. Times are seconds since 1970; 0: never.

    revision: what the files on this host say; service: "ok", or words about the last failed contact;
    confirmed_at: when the service last said that what is in force here is what it wants, or gave something newer;
    service_at: what its own clock said at least when this was noted, and since_boot: the same less the time since that
    boot; confirmed_since_boot: when it confirmed, in seconds since the boot that is noted, 0 where it was before that;
    ends_earlier: by how many seconds ends stand earlier in the files, as this host's clock is behind that one.
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
        """Be the only agent that works with this folder, until the process ends. Raises StateProblem.

        A record lock: a child that a killed agent had just begun does not hold it against the next one, as it would by
        flock(2) or an open file description's lock. It goes when this process closes any descriptor of the file.
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
        """The process that holds the lock, where one does. May raise OSError."""
        if not self.in_use():
            return None
        with open(os.path.join(self.folder.path, _LOCK), encoding="ascii", errors="replace") as file:
            noted = file.read().strip()
        return int(noted) if noted.isdecimal() else None

    def in_use(self) -> bool:
        """Whether another process works with this folder now, as an agent; not to be asked by one that has the lock.

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
        """Words where nothing can be written in this folder: there is no space, or its disk or a file lets nobody."""
        status = os.statvfs(self.folder.path)
        place = mount_point(self.folder.path)
        if status.f_flag & os.ST_RDONLY:
            return (f"the file system at {place} is read-only, so {self.folder.path} cannot be written",)
        free = status.f_bfree if os.geteuid() == 0 else status.f_bavail
        if free * status.f_frsize < _LEAST_FREE or (status.f_files and not status.f_ffree):
            return (f"no space left on the file system at {place} for {self.folder.path}",)
        # Root too is kept from what is immutable or append-only (chattr(1)).
        names = (os.path.join(self.folder.path, name) for name in sorted(self.folder.names()))
        for path in (self.folder.path, *names):
            if not os.access(path, os.W_OK):
                return (f"{path} cannot be written; is it immutable (lsattr -d {path})?",)
            if is_append_only(path):
                return (f"{path} cannot be written: it is append-only (chattr -a {path})",)
        return ()

    def enrolment(self) -> Optional[Enrolment]:
        """Who this host is; None before enrolment. Raises StateProblem for a damaged file."""
        fields = self.load(_ENROLMENT)
        if fields is None:
            return None
        # A newer agent may have noted more; an older one that takes its place still knows who it is.
        known = {name: value for name, value in fields.items() if name in Enrolment._fields}
        try:
            return Enrolment(**known)
        except TypeError:
            raise self._damaged(_ENROLMENT) from None

    def enrol(self, enrolment: Enrolment) -> None:
        """Remember who this host is and forget what it was told before as another one."""
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
        """Remember a document, for good when this returns; on a full disk in the room that was kept for it."""
        self.save(_ACCEPTED, accepted._asdict(), reserve=self.folder)

    def keep_room(self) -> None:
        """Have room for the next document, whatever fills the disk meanwhile: it may take keys away."""
        with contextlib.suppress(OSError):
            self.folder.keep_reserve(os.stat(os.path.join(self.folder.path, _ACCEPTED)).st_size)

    def status(self) -> Status:
        """How the agent fared when it last noted it; what is damaged counts as not noted."""
        try:
            noted = self.load(_STATUS) or {}
        except StateProblem:
            return Status()
        usual = Status()._asdict()
        fields = {name: value for name, value in noted.items() if name in usual and _is_alike(value, usual[name])}
        return Status(**{**fields, "problems": tuple(fields.get("problems", ()))})

    def note(self, status: Status) -> None:
        """Note how the agent fares; may be lost with a power cut."""
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
        """Keep one note; durable: for good when this returns; reserve: as Folder.write has it. May raise OSError."""
        data = json.dumps(fields, sort_keys=True).encode("ascii")
        self.folder.write(name, data, PRIVATE_FILE, durable=durable, reserve=reserve)
        if durable:
            self.folder.sync()

    def _damaged(self, name: str) -> StateProblem:
        remedy = _REMEDIES.get(name, "take it away, and look at what keyrack-agent doctor says")
        return StateProblem(f"{os.path.join(self.folder.path, name)} is damaged; {remedy}")


def _is_alike(value: Any, usual: Any) -> bool:
    """Whether a field that was read is of the kind that it has by default."""
    if isinstance(usual, tuple):
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if isinstance(usual, float):
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, type(usual))
