"""What the agent must remember over a restart: who it is, what it last accepted, how it fares; it decides nothing."""

from __future__ import annotations

import fcntl
import json
import os
from typing import Any, Dict, NamedTuple, Optional, Tuple

from keyrack.agent.folder import PRIVATE_FILE, PRIVATE_FOLDER, Folder

DEFAULT_STATE_FOLDER = "/var/lib/keyrack-agent"
DEFAULT_KEYS_FOLDER = "/etc/ssh/keyrack/keys"
DEFAULT_REVOKED_KEYS = "/etc/ssh/keyrack/revoked_keys"

_ENROLMENT, _ACCEPTED, _STATUS, _LOCK = "enrolment.json", "accepted.json", "status.json", "lock"
_REMEDIES = {
    _ENROLMENT: "enrol this host again with --replace",
    _ACCEPTED: "the next document from the service replaces it",
    _STATUS: "the running agent makes it again",
}
_LARGEST_FILE = 256 * 1024 * 1024


class MemoryProblem(Exception):
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


class Accepted(NamedTuple):
    """The last document that passed every check, with its signature: both as they came."""

    document: str
    signature: str


class Status(NamedTuple):
    """How the agent fares, for `status`. Times are seconds since 1970; 0: never.

    revision: what the files on this host say; service: "ok", or words about the last failed contact.
    """

    revision: int = 0
    applied_at: float = 0.0
    contact_at: float = 0.0
    service: str = ""
    problems: Tuple[str, ...] = ()


class Memory:
    """The agent's own folder, open. Methods that write may raise OSError."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    @classmethod
    def open(cls, path: str, *, create: bool = False) -> Memory:
        """Open the folder at an absolute path, 0700. Raises FolderProblem or OSError."""
        return cls(Folder.open(path, PRIVATE_FOLDER, create=create))

    def lock(self) -> None:
        """Be the only agent that works with this folder, until the process ends. Raises MemoryProblem."""
        descriptor = os.open(os.path.join(self.folder.path, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise MemoryProblem(f"another agent is at work in {self.folder.path}; stop it first") from None

    def in_use(self) -> bool:
        """Whether an agent works with this folder now. May raise OSError."""
        try:
            descriptor = os.open(os.path.join(self.folder.path, _LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def enrolment(self) -> Optional[Enrolment]:
        """Who this host is; None before enrolment. Raises MemoryProblem for a damaged file."""
        fields = self._load(_ENROLMENT)
        if fields is None:
            return None
        try:
            return Enrolment(**fields)
        except TypeError:
            raise self._damaged(_ENROLMENT) from None

    def enrol(self, enrolment: Enrolment) -> None:
        """Remember who this host is and forget what it was told before as another one."""
        for name in (_ACCEPTED, _STATUS):
            if name in self.folder.names():
                self.folder.remove(name)
        self._save(_ENROLMENT, enrolment._asdict())

    def accepted(self) -> Optional[Accepted]:
        """The last accepted document; None when there is none. Raises MemoryProblem for a damaged file."""
        fields = self._load(_ACCEPTED)
        if fields is None:
            return None
        document, signature = fields.get("document"), fields.get("signature")
        if not isinstance(document, str) or not isinstance(signature, str):
            raise self._damaged(_ACCEPTED)
        return Accepted(document, signature)

    def accept(self, accepted: Accepted) -> None:
        """Remember a document, for good when this returns."""
        self._save(_ACCEPTED, accepted._asdict())

    def status(self) -> Status:
        """How the agent fared when it last noted it; a damaged note counts as none."""
        try:
            fields = self._load(_STATUS) or {}
            return Status(**{**fields, "problems": tuple(fields.get("problems", ()))})
        except (MemoryProblem, TypeError):
            return Status()

    def note(self, status: Status) -> None:
        """Note how the agent fares; may be lost with a power cut."""
        self._save(_STATUS, status._asdict(), durable=False)

    def _load(self, name: str) -> Optional[Dict[str, Any]]:
        try:
            fields = json.loads(self.folder.read(name, _LARGEST_FILE))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise MemoryProblem(f"{os.path.join(self.folder.path, name)} cannot be read: {error.strerror}") from None
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise self._damaged(name)
        return fields

    def _save(self, name: str, fields: Dict[str, Any], *, durable: bool = True) -> None:
        data = json.dumps(fields, sort_keys=True).encode("ascii")
        self.folder.write(name, data, PRIVATE_FILE, durable=durable)
        if durable:
            self.folder.sync()

    def _damaged(self, name: str) -> MemoryProblem:
        return MemoryProblem(f"{os.path.join(self.folder.path, name)} is damaged; {_REMEDIES[name]}")
