"""Many hosts on one machine, each with its own sshd and real agent, at one real service; holds no assertion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from keyrack.cli.machine.demo_host import DemoHost
from keyrack.core.hosts import servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials
from keyrack.core.people import actors
from keyrack.errors import Refusal
from keyrack.model import Actor, Server
from tests.login.private_sshd import USERNAME, Key, SshClient, quick, sshd_path
from tests.ports import free_port
from tests.services import Service


class Host:
    """One of them: its server at the service, and what runs on it."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.server = server
        self._folder = folder
        self._port = free_port()
        self.demo = self._prepared()
        self.client = SshClient(self._port, self.demo.known_hosts)

    def enrol(self, service: Service, actor: Actor) -> None:
        """Make it a host of the service."""
        self.demo.enrol(service.url, servers.invite(service.instance, actor, self.server.id))

    def start(self) -> None:
        """Start sshd and the agent."""
        self.demo.start()

    def end(self) -> None:
        """Stop it for good."""
        self.demo.stop()

    def stop(self) -> None:
        """Turn it off: neither sshd nor the agent runs. It can be started again."""
        self.demo.stop()
        self.demo = self._prepared()

    def _prepared(self) -> DemoHost:
        demo = DemoHost(self._folder, self._port, sshd_path())
        demo.prepare()
        quick(demo.server)
        return demo


class Fleet:
    """All of them, in one workspace."""

    def __init__(self, service: Service, hosts: list[Host], actor: Actor) -> None:
        self.service = service
        self.hosts = hosts
        self.actor = actor

    @property
    def instance(self) -> Instance:
        """The service's inside."""
        return self.service.instance

    def add(self, key: Key, label: str) -> None:
        """Put a key on every host, for the calling account."""
        for host in self.hosts:
            credentials.add(
                self.instance, self.actor, host.server.id, label=label, username=USERNAME, public_key=key.public
            )


@contextmanager
def fleet(service: Service, folder: Path, count: int) -> Iterator[Fleet]:
    """So many hosts, enrolled and running, in a folder that sshd accepts."""
    actor = actors.system_actor(1)
    hosts = []
    with ExitStack() as stack:
        for number in range(count):
            server = servers.create(service.instance, actor, name=f"host-{number}", address="127.0.0.1")
            try:
                system_users.create(service.instance, actor, server.id, username=USERNAME)
            except Refusal:
                pass  # root is there from the start
            host = Host(folder / f"host-{number}", server)
            host.enrol(service, actor)
            host.start()
            stack.callback(host.end)
            hosts.append(host)
        yield Fleet(service, hosts, actor)
