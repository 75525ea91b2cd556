"""What people notice while the network between the service and a host fails in each of its ways: logins, ends of keys.

    .venv/bin/python bench/bad_network.py [SECONDS]

A real service, a real agent and a real sshd on loopback, with a relay between service and agent that does its worst
for SECONDS (15 unless said) in each way. Meanwhile somebody logs in again and again, one key reaches its end, and one
is revoked at the service. Prints a table as docs/figures.md has it; a login that fails, or a key that opens after its
end, ends this with an error. Needs sshd.
"""

from __future__ import annotations

import selectors
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.cli.machine.demo_host import DemoHost
from keyrack.core.hosts import servers, system_users
from keyrack.core.keys import credentials, revocation
from keyrack.core.people import actors
from keyrack.errors import Refusal
from keyrack.ssh.public_key import fingerprint_of
from tests.login.private_sshd import USERNAME, Key, SshClient, sshd_path, strict_folder
from tests.ports import free_port
from tests.services import TEAM, Service, running, settings_for
from tests.waiting import wait_until

WAYS = {
    "cut": "nobody listens, what was open is reset",
    "silent": "connections open, and nothing comes",
    "half open": "questions arrive, answers are lost",
    "slow": "200 bytes a second",
    "breaks": "each connection is reset after 2 kB",
}


class Relay:
    """Between an agent and the service; way: one of WAYS, or "" while all is well."""

    def __init__(self, to: str) -> None:
        parts = urlsplit(to)
        self._to = (str(parts.hostname), int(parts.port or 80))
        self.port = free_port()
        self.way = ""
        self._stopping = threading.Event()
        self._pairs: set[socket.socket] = set()
        threading.Thread(target=self._serve, daemon=True).start()

    def fail(self, way: str) -> None:
        """From now on fail in this way; what is open is reset."""
        self.way = way
        for one in list(self._pairs):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self.fail("cut")

    def _serve(self) -> None:
        with socket.create_server(("127.0.0.1", self.port)) as listening:
            listening.settimeout(0.1)
            while not self._stopping.is_set():
                try:
                    client = listening.accept()[0]
                except TimeoutError:
                    continue
                if self.way == "cut":
                    client.close()
                    continue
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        carried, way = 0, self.way
        with client, suppress(OSError), socket.create_connection(self._to, 10) as service:
            self._pairs |= {client, service}
            with selectors.DefaultSelector() as ready:
                ready.register(client, selectors.EVENT_READ, service)
                ready.register(service, selectors.EVENT_READ, client)
                while not self._stopping.is_set():
                    for key, _ in ready.select(0.5):
                        one = key.fileobj
                        assert isinstance(one, socket.socket)
                        data = one.recv(20 if way == "slow" else 65536)
                        if not data:
                            return
                        carried += len(data)
                        if way == "slow":
                            time.sleep(0.1)
                        if way == "breaks" and carried > 2000:
                            return
                        if way != "silent" and not (way == "half open" and one is service):
                            key.data.sendall(data)
            self._pairs -= {client, service}


def watch(client: SshClient, key: Key, until: float) -> tuple[int, int]:
    """Log in again and again; how often, and how often in vain."""
    count = failed = 0
    while time.monotonic() < until:
        count += 1
        failed += client.login(key).returncode != 0
    return count, failed


def one_way(service: Service, host: DemoHost, server_id: int, relay: Relay, scratch: Path, seconds: float) -> list[str]:
    """The row of the way in which the relay is about to fail: its words, and what was wrong."""
    way, actor = scratch.name.rstrip("_"), actors.system_actor(1)
    client = SshClient(host.port, host.known_hosts)
    keys = {name: Key.make(scratch / name) for name in ("stays", "ends", "revoked")}
    ends = datetime.now(UTC) + timedelta(seconds=8)
    for name, key in keys.items():
        given: dict[str, Any] = {"label": f"{way} {name}", "username": USERNAME, "public_key": key.public}
        if name == "ends":
            given["expires_at"] = ends
        credentials.add(service.instance, actor, server_id, **given)
    for key in keys.values():
        client.wait_until_open(key)
    relay.fail(way)
    revocation.revoke_everywhere(service.instance, actor, fingerprint_of(keys["revoked"].public))
    count, failed = watch(client, keys["stays"], time.monotonic() + seconds)
    after_its_end = client.lets_in(keys["ends"]) if datetime.now(UTC) > ends + timedelta(seconds=1) else None
    healed = time.monotonic()
    relay.fail("")
    wait_until(lambda: not client.lets_in(keys["revoked"]), "the revocation after the network was well again")
    refused = time.monotonic() - healed
    ended = {True: "**opened**", False: "refused", None: "had not ended"}[after_its_end]
    wrong = [f"{failed} logins failed"] if failed else []
    wrong += ["a key opened after its end"] if after_its_end else []
    print(f"| {way}: {WAYS[way]} | {count} | {failed} | {ended} | {refused:.1f} s |", flush=True)
    return wrong


def main() -> int:
    """Set up, and fail in each way."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the table alone
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 15.0
    wrong: list[str] = []
    print("| the network | logins meanwhile | failed | a key after its end | revoked key refused after it is well |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, strict_folder() as strict:
        data = Path(folder) / "data"
        with running(settings_for(data, f"sqlite:///{folder}/keyrack.db")) as service:
            service.apply(TEAM)
            relay = Relay(service.url)
            actor = actors.system_actor(1)
            server = servers.create(service.instance, actor, name="far-away", address="127.0.0.1")
            with suppress(Refusal):  # root is there from the start
                system_users.create(service.instance, actor, server.id, username=USERNAME)
            host = DemoHost(strict / "host", free_port(), sshd_path())
            host.prepare()
            host.enrol(f"http://127.0.0.1:{relay.port}", servers.invite(service.instance, actor, server.id))
            host.start()
            try:
                for way in WAYS:
                    scratch = Path(folder) / f"{way}_"
                    scratch.mkdir()
                    wrong += [f"{way}: {one}" for one in one_way(service, host, server.id, relay, scratch, seconds)]
            finally:
                host.stop()
                relay.stop()
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
