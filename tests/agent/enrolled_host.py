"""A host with its files in one folder, driven by the agent's real command or step by step; holds no assertion."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from keyrack.agent.reconcile import Reconciler
from keyrack.agent.service.client import ServiceClient
from keyrack.agent.service.enrolment import enrol
from keyrack.agent.service.follow import Follower
from keyrack.agent.service.witness import Witness
from keyrack.agent.state import StateFolder
from keyrack.agent.system import local
from tests.agent.small_service import SmallService


class EnrolledHost:
    """The folders of a host: the agent's own, the key files, the file of revoked keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "agent"
        self.keys = folder / "ssh" / "keys"
        self.revoked_keys = folder / "ssh" / "revoked_keys"
        self.said: list[str] = []
        self._open: list[tuple[StateFolder, ServiceClient]] = []

    @classmethod
    def enrol(cls, folder: Path, service: SmallService) -> EnrolledHost:
        """Enrol by what the agent's command calls, in this process, which saves its start."""
        host = cls(folder)
        store = StateFolder.open(str(host.state), create=True)
        client = ServiceClient(service.url)
        with contextlib.closing(store.folder), contextlib.closing(client):
            enrol(
                store,
                client,
                url=service.url,
                token="t0ken",
                keys_folder=str(host.keys),
                revoked_keys=str(host.revoked_keys),
            )
            local.write(store, local.Local())
        return host

    def command(self, *arguments: str) -> list[str]:
        """The agent's command line for this host."""
        return [sys.executable, "-m", "keyrack.agent", *arguments, f"--state-dir={self.state}"]

    def agent(self, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the agent's command to its end."""
        if "enroll" in arguments:
            arguments = (*arguments, f"--keys-dir={self.keys}", f"--revoked-keys={self.revoked_keys}")
        return subprocess.run(
            self.command(*arguments),
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def follower(self) -> Follower:
        """The agent's inside, started, as after a restart; drive it with step()."""
        memory = StateFolder.open(str(self.state))
        enrolment = memory.enrolment()
        assert enrolment is not None
        client = ServiceClient(enrolment.url, enrolment.secret)
        self._open.append((memory, client))
        witness = Witness(memory, enrolment.signing_key)
        reconciler = Reconciler(memory, enrolment)
        follower = Follower(memory, reconciler, client, self.said.append, witness=witness)
        follower.start()
        return follower

    def close(self) -> None:
        """Hang up, for every follower."""
        for memory, client in self._open:
            client.close()
            memory.folder.close()

    def files(self) -> dict[str, bytes]:
        """Everything that sshd would read now, by name, and whatever else lies there."""
        found = {}
        for path in self.keys.iterdir():
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # a running agent's unfinished file
                found[path.name] = path.read_bytes()
        found["revoked"] = self.revoked_keys.read_bytes()
        return found
