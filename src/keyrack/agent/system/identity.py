"""Identifies this machine and this run of the agent, so that the service notices copies of a machine; it decides
nothing.

An agent proves itself by a secret in its state folder, and the folder is copied with a machine. So each request has,
beside the secret: the run (random, new at each start), the boot, hashes of the machine's id and of its host keys, how
often an agent was started with this folder, and a number that rises with each request of a lane (a connection).
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import secrets
import socket
import threading
from typing import Dict, Tuple

from keyrack.agent.state import StateFolder, StateProblem
from keyrack.agent.system import processes
from keyrack.ssh.digest import sha256

HEADER = "Keyrack-Machine"
NOTE = "run.json"
FOLLOWER, WATCH = "follower", "watch"  # lanes

_MACHINE_ID = ("/etc/machine-id", "/var/lib/dbus/machine-id")
_HOST_KEYS = "/etc/ssh/ssh_host_*_key.pub"
_NAME = re.compile(r"[^A-Za-z0-9.-]")
_LONGEST_NAME = 64
_LARGEST_FILE = 64 * 1024


class Identity:
    """The identity of one machine and one run of the agent; safe to use from several threads."""

    def __init__(self, state: StateFolder, etc: str = "/etc") -> None:
        """Counts a start. etc: the folder to use instead of /etc, in tests."""
        self._state_folder = state
        self._lock = threading.Lock()
        self._numbers: Dict[str, int] = {}
        try:
            noted = (state.load(NOTE) or {}).get("starts")
        except StateProblem:
            noted = None
        self.starts = noted + 1 if isinstance(noted, int) else 1
        self._machine = machine_mark(etc)
        self._keys = host_key_mark(etc)
        self._boot = _mark(processes.boot_id().encode("ascii", "replace"))
        self._name = _NAME.sub("-", socket.gethostname())[:_LONGEST_NAME]
        self.run = ""
        self.renew()

    def renew(self) -> None:
        """Become another run: another agent uses this one's name, as after a copy of a running machine."""
        with self._lock:
            self.run = secrets.token_hex(8)
            self._numbers = {}
        # A full or read-only folder is reported elsewhere, and must not stop the agent.
        with contextlib.suppress(OSError):
            self._state_folder.save(NOTE, {"starts": self.starts, "run": self.run}, durable=False)

    def header(self, lane: str) -> str:
        """The header's value for the next request of a lane."""
        with self._lock:
            number = self._numbers[lane] = self._numbers.get(lane, 0) + 1
            run = self.run
        fields = (
            ("run", run),
            ("boot", self._boot),
            ("machine", self._machine),
            ("keys", self._keys),
            ("starts", str(self.starts)),
            ("lane", lane),
            ("number", str(number)),
            ("name", self._name),
        )
        return "; ".join(f"{name}={value}" for name, value in fields)


def machine_mark(etc: str = "/etc") -> str:
    """A hash of the machine's id, as the id itself must not be sent (machine-id(5)); empty where it has none."""
    for path in (os.path.join(etc, "machine-id"), *_MACHINE_ID[1:]):
        machine_id = _read(path).strip()
        if machine_id:
            return _mark(b"keyrack machine " + machine_id)
    return ""


def host_key_mark(etc: str = "/etc") -> str:
    """A hash of the public host keys in /etc/ssh, without comments; empty where there are none."""
    keys = []
    for path in sorted(glob.glob(os.path.join(etc, os.path.relpath(_HOST_KEYS, "/etc")))):
        words: Tuple[bytes, ...] = tuple(_read(path).split()[:2])
        keys.append(b" ".join(words))
    return _mark(b"\n".join(keys)) if keys else ""


def _mark(data: bytes) -> str:
    return sha256(data).hex()[:16]


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_LARGEST_FILE)
    except OSError:
        return b""
