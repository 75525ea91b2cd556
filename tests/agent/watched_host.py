"""A host with a private sshd whose keys the real agent keeps and whose sessions it watches; holds no assertion."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keyrack.private_sshd import PrivateSshd
from keyrack.protocol import host_document
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import HOST, ISSUED
from tests.agent.small_service import SmallService
from tests.login.private_sshd import USERNAME, Key, SshClient, quick, sshd_path
from tests.ports import free_port
from tests.quick_ssh import KEX
from tests.waiting import wait_until


class Watched:
    """A private sshd whose keys the real agent keeps, and ssh connections to it."""

    def __init__(self, host: EnrolledHost, service: SmallService, sshd: PrivateSshd) -> None:
        self.host = host
        self.service = service
        self.sshd = sshd
        self.client = SshClient(sshd.port, sshd.known_hosts)
        self.revision = 0
        self._agent: subprocess.Popen[bytes] | None = None
        self._clients: list[subprocess.Popen[bytes]] = []

    def publish(self, users: Mapping[str, Sequence[AuthorizedKey]], **more: Any) -> None:
        """Have these keys in force."""
        self.publish_alone(users, **more)
        if self._agent is not None:
            self.service.wait_for_report("applied", self.revision)

    def publish_alone(self, users: Mapping[str, Sequence[AuthorizedKey]], **more: Any) -> None:
        """The same without waiting for the agent."""
        self.revision += 1
        text = host_document.encode(HostDocument(HOST, self.revision, ISSUED, users, **more))
        self.service.publish(self.revision, self.service.signer.signed(text))

    @property
    def agent_pid(self) -> int:
        """The number of the agent's process."""
        assert self._agent is not None
        return self._agent.pid

    def start_agent(self, before: Sequence[str] = ()) -> None:
        """Run the agent. before: what its command line begins with."""
        given = [*before, *self.host.command("run", f"--sshd-log={self.sshd.log}")]
        with (self.host.folder / "agent.log").open("ab") as log:
            self._agent = subprocess.Popen(given, stderr=log)

    def kill_agent(self) -> None:
        """End the agent as a power cut would."""
        if self._agent is not None:
            self._agent.kill()
            self._agent.wait()
            self._agent = None

    def ssh(
        self, key: Key, *arguments: str, command: str | None = None, user: str = USERNAME
    ) -> subprocess.Popen[bytes]:
        """Open a connection that stays."""
        given = ["ssh", "-F", "/dev/null", "-i", str(key.path), "-p", str(self.sshd.port)]
        for option in (
            KEX,
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            f"UserKnownHostsFile={self.sshd.known_hosts}",
        ):
            given += ["-o", option]
        client = subprocess.Popen(
            [*given, *arguments, f"{user}@127.0.0.1", *([command] if command else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._clients.append(client)
        return client

    def reported_sessions(self) -> list[dict[str, str]]:
        """The sessions as the service knows them from the last full list."""
        lists: list[list[dict[str, str]]] = [
            report["sessions"] for report in list(self.service.reports) if "sessions" in report
        ]
        return lists[-1] if lists else []

    def used(self) -> list[dict[str, str]]:
        """All uses of keys that were reported."""
        return [use for report in list(self.service.reports) for use in report.get("last_used", ())]

    def logins(self) -> list[tuple[str, str]]:
        """All logins that the service took, account and key, each batch once."""
        batches = {
            logins["batch"]: logins["entries"]
            for logins in (report.get("logins") for report in list(self.service.reports))
            if logins is not None
        }
        return [(one["user"], one["fingerprint"]) for entries in batches.values() for one in entries]

    def wait_for_sessions(self, count: int) -> list[dict[str, str]]:
        """The list, once it has so many sessions."""
        wait_until(lambda: len(self.reported_sessions()) == count, f"{count} sessions in a report")
        return self.reported_sessions()

    def close(self) -> None:
        """End everything."""
        for client in self._clients:
            assert client.stdin is not None
            client.stdin.close()
            client.kill()
            client.wait()
        self.kill_agent()


class SshdOneByOne(PrivateSshd):
    """Started anew for each connection, as inetd does and a socket of systemd with Accept=yes."""

    def start(self) -> None:
        """Listen, in place of sshd."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._started: list[subprocess.Popen[bytes]] = []
        threading.Thread(target=self._accept, name="inetd", daemon=True).start()

    def stop(self) -> None:
        """Listen no more, and end what was started."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for process in self._started:
            process.kill()
            process.wait()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, self.log.open("ab") as log:
                    given = [str(sshd_path()), "-i", "-e", "-f", str(self.config)]
                    self._started.append(
                        subprocess.Popen(
                            given,
                            stdin=connection.fileno(),
                            stdout=connection.fileno(),
                            stderr=log,
                            start_new_session=True,
                        )
                    )


@contextmanager
def enrolled(
    folder: Path, service: SmallService, kind: type[PrivateSshd] = PrivateSshd, settings: str = ""
) -> Iterator[Watched]:
    """sshd and the agent of a host in a folder, both running, with nothing published yet."""
    sshd = kind(folder / "sshd", free_port(), sshd_path())
    host = EnrolledHost(folder)
    sshd.keys, sshd.revoked_keys = host.keys, host.revoked_keys
    sshd.prepare()
    quick(sshd)
    if settings:
        sshd.config.write_text(f"{settings}\n{sshd.config.read_text('utf-8')}", "utf-8")
    ended = host.agent(
        "enroll",
        f"--sshd-config={sshd.config}",
        environment={"KEYRACK_AGENT_URL": service.url, "KEYRACK_AGENT_TOKEN": "t0ken"},
    )
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr)
    sshd.start()
    watched = Watched(host, service, sshd)
    watched.start_agent()
    try:
        yield watched
    finally:
        watched.close()
        sshd.stop()
