"""Times hosts that wait: a wake of all of them, how they rest, their first contact, and one host with many keys.

    .venv/bin/python bench/hosts.py wake|rest|first-contact|large-host [HOSTS or KEYS] [sqlite|postgresql] [SECONDS]

Serves with one process. The hosts are connections of this process that speak as the agent does: they ask for their
document, report that they obey it, and ask again. SECONDS: how long they rest, 60 unless said, in whole waits. Each
figure is printed with its limit; what the service used of the processor counts more than the clock where others use
the machine too.
"""

from __future__ import annotations

import asyncio
import compileall
import gzip
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from api import SECRET, public_key, request, waited

import keyrack
from keyrack import app
from keyrack.core.instance import Instance
from keyrack.core.people import tokens
from keyrack.core.people.actors import system_actor
from keyrack.core.workspace import apply as workspace_apply
from keyrack.settings import Settings
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.people import users as user_rows
from keyrack.store.sealing import sealed
from tests.postgres import running_cluster
from tests.services import free_port

WAIT = 25
# structlog loads rich where it is, which only the tools of development bring along: four megabytes.
PROGRAM = "import sys; sys.modules['rich'] = None\nfrom keyrack.cli.main import main\nmain(prog_name='keyrack')"
TEAM = """[workspace]
name = "acme"
[[users]]
name = "olga"
role = "owner"
[[users]]
name = "alice"
role = "member"
"""


@dataclass
class Served:
    """The service as a process. secrets: of the hosts."""

    port: int
    pid: int
    secrets: list[str]

    def used(self) -> float:
        """Seconds of processor time."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Resident megabytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def populate(instance: Instance, hosts: int, keys: int) -> list[str]:
    """Servers with an account and a tag each, all enrolled; keys on the first. Their hosts' secrets."""
    words = [secrets.token_urlsafe(32) for _ in range(hosts)]
    now = instance.now()
    row: dict[str, Any] = {"workspace_id": 1, "mode": "enforce", "revision": 1, "applied_revision": 0, "facts": {}}
    row |= {"sshd": {}, "rows_sum": bytes(32), "created_at": now, "updated_at": now, "enrolled_at": now}
    lines = [parse(public_key()) for _ in range(keys)]

    def fill(connection: Any) -> None:
        made = sealed.insert_rows(
            connection,
            tables.servers,
            [
                {
                    **row,
                    "host": secrets.token_hex(8),
                    "name": f"host-{number}",
                    "address": "192.0.2.1",
                    "lineage": secrets.token_hex(4),
                    "agent_secret_hash": instance.key.hash_token(word),
                }
                for number, word in enumerate(words)
            ],
        )
        ids = [server["id"] for server in made]
        account = {"username": "deploy", "deletable": True, "managed": False, "created_at": now}
        users = sealed.insert_rows(connection, tables.system_users, [{**account, "server_id": one} for one in ids])
        sealed.insert_rows(connection, tables.server_tags, [{"server_id": one, "tag": "fleet"} for one in ids])
        credential = {"server_id": ids[0], "system_user_id": users[0]["id"], "created_at": now, "revision": 1}
        credential |= {"temporary": False, "restrictions": {}, "expires_at": None}
        sealed.insert_rows(
            connection,
            tables.credentials,
            [
                {
                    **credential,
                    "label": f"key-{number}",
                    "public_key": line.canonical,
                    "key_type": line.type,
                    "fingerprint": line.fingerprint,
                    "comment": "",
                }
                for number, line in enumerate(lines)
            ],
        )

    instance.database.write(fill)
    return words


@contextmanager
def service(url: str, folder: Path, hosts: int, keys: int = 0, password: str = "") -> Iterator[Served]:
    """The service on a database with so many hosts. password: olga's, "" for none."""
    instance = app.open_instance(Settings(data=folder / "data", database=url))
    team = TEAM.replace('"owner"\n', f'"owner"\npassword = "{password}"\n') if password else TEAM
    workspace_apply.apply(instance, team, {})
    owner = instance.database.read(lambda connection: user_rows.user(connection, 1))
    assert owner is not None
    tokens.create(instance, system_actor(1), owner, name="bench", scopes=("*",), secret=SECRET)
    words = populate(instance, hosts, keys)
    instance.database.close()
    port = free_port()
    command = ["-c", PROGRAM, "serve", "--data", str(folder / "data"), "--listen", f"127.0.0.1:{port}"]
    environment = {**os.environ, "KEYRACK_RATE_LIMIT": "100000000", "KEYRACK_DATABASE": url}
    # As it is installed: modules are compiled already, which leaves its traces in memory otherwise.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(Path(keyrack.__file__).parent, quiet=2)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, *command], env=environment, stderr=log, stdout=log)
    try:
        waited(process, port)
        yield Served(port, process.pid, words)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@dataclass
class Fleet:
    """What all hosts got."""

    contacts: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    receipts: int = 0
    waiting: int = 0
    lost: int = 0


class Host(asyncio.Protocol):
    """One host's connection."""

    def __init__(self, fleet: Fleet, secret: str) -> None:
        self._fleet, self._secret = fleet, secret
        self._held = b""
        self._revision, self._lineage = 0, ""
        self._reporting = False

    def connection_made(self, transport: Any) -> None:
        """Ask at once."""
        self._transport = transport
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        """Counted: an agent would come back."""
        self._fleet.lost += 1

    def data_received(self, data: bytes) -> None:
        """Act once an answer is whole."""
        self._held += data
        while True:
            head, found, rest = self._held.partition(b"\r\n\r\n")
            if not found:
                return
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(rest) < length:
                return
            self._held = rest[length:]
            self._answered(head, rest[:length])

    def _answered(self, head: bytes, body: bytes) -> None:
        status = int(head[9:12])
        if self._reporting:
            self._reporting = False
            self._fleet.receipts += status == 200
        elif status == 200:
            self._fleet.contacts.append(time.perf_counter())
            if b"content-encoding: gzip" in head.lower():
                body = gzip.decompress(body)
            document = json.loads(json.loads(body)["document"])
            self._revision, self._lineage = document["revision"], document["lineage"]
            self._report()
            return
        elif status != 204:
            self._fleet.waiting -= 1
        if status not in (200, 204):
            self._fleet.wrong.append(f"{status} {body[:80]!r}")
            asyncio.get_running_loop().call_later(1, self._ask)
            return
        self._ask()

    def _ask(self) -> None:
        mark = f"&lineage={self._lineage}" if self._lineage else ""
        self._send("GET", f"/agent/v1/document?revision={self._revision}{mark}&wait={WAIT}", b"")

    def _report(self) -> None:
        self._reporting = True
        report = {"revision": self._revision, "lineage": self._lineage, "state": "applied", "problems": []}
        self._send("POST", "/agent/v1/report", json.dumps({**report, "agent_version": "1.0"}).encode())

    def _send(self, method: str, path: str, body: bytes) -> None:
        head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {self._secret}\r\n"
        head += f"Accept-Encoding: gzip\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        if not self._transport.is_closing():
            self._transport.write(head.encode() + body)


async def call(served: Served, method: str, path: str, body: Any = None) -> float:
    """One call of a person; seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    began = time.perf_counter()
    writer.write(request(method, path, body))
    status = await reader.readline()
    if not status.split()[1].startswith(b"2"):
        raise SystemExit(f"{method} {path}: {status!r} {await reader.read(2000)!r}")
    taken = time.perf_counter() - began
    writer.close()
    return taken


async def connect(served: Served, fleet: Fleet) -> None:
    """Have every host come, two hundred at once."""
    loop = asyncio.get_running_loop()
    for at in range(0, len(served.secrets), 200):
        some = served.secrets[at : at + 200]
        await asyncio.gather(
            *(loop.create_connection(lambda s=s: Host(fleet, s), "127.0.0.1", served.port) for s in some)  # type: ignore[misc]
        )


async def until(fleet: Fleet, documents: int, receipts: int, seconds: float) -> None:
    """Wait until so many documents and receipts were taken."""
    end = time.perf_counter() + seconds
    while (len(fleet.contacts) < documents or fleet.receipts < receipts) and time.perf_counter() < end:
        await asyncio.sleep(0.01)


def quantile(values: list[float], share: float) -> float:
    """Of a list in any order; what never came is for ever."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else float("inf")


def show(name: str, value: float, unit: str, limit: float) -> None:
    """One line."""
    print(f"  {name:<58} {value:9.3f} {unit:<6} limit {limit:g}  {'' if value <= limit else 'MISSED'}", flush=True)


async def first_contact(served: Served, limit: float = 20.0) -> Fleet:
    """Everybody comes at once; somebody adds keys meanwhile."""
    fleet = Fleet()
    adds: list[float] = []
    count, before, began = len(served.secrets), served.used(), time.perf_counter()
    coming = asyncio.create_task(connect(served, fleet))
    while len(fleet.contacts) < count and time.perf_counter() < began + 10 * limit:
        body = {"label": f"meanwhile-{len(adds)}", "username": "deploy", "publicKey": public_key()}
        adds.append(await call(served, "POST", "/api/v3/servers/1/ssh/credentials", body))
        await asyncio.sleep(0.2)
    await coming
    await until(fleet, count, count, 60)
    show(f"first contact of {count}: until each has its document", max(fleet.contacts) - began, "s", limit)
    show("turned away or dropped", len(fleet.wrong) + fleet.lost, "", 0)
    for words in fleet.wrong[:3]:
        print("  ", words)
    show("an add meanwhile, p99", quantile(adds, 0.99), "s", 0.2)
    print(f"  the service used {served.used() - before:.2f} s of processor, {served.memory():.0f} MB", flush=True)
    return fleet


async def wake(served: Served) -> None:
    """One commit that changes every host."""
    fleet = await first_contact(served)
    count = len(served.secrets)
    await asyncio.sleep(2)
    for _ in range(3):
        await until(fleet, 0, fleet.receipts, 1)
        fleet.contacts.clear()
        fleet.receipts = 0
        before, began = served.used(), time.perf_counter()
        body = {"user": "alice", "tag": "fleet", "system_user": "deploy"}
        taken = await call(served, "POST", "/api/keyrack/v1/grants", body)
        committed = began + taken
        await until(fleet, count, 0, 120)
        times = [max(0.0, at - committed) for at in fleet.contacts] + [float("inf")] * (count - len(fleet.contacts))
        await until(fleet, count, count, 60)
        used = served.used() - before
        print(f"  the commit itself {taken:.3f} s; with all receipts the service used {used:.2f} s of processor")
        show(f"{count} hosts woken: p50", quantile(times, 0.5), "s", 1 if count <= 1000 else 10)
        show(f"{count} hosts woken: p99", quantile(times, 0.99), "s", 1 if count <= 1000 else 10)
        await asyncio.sleep(1)


async def rest(served: Served) -> None:
    """Everybody waits."""
    seconds = float(sys.argv[4]) if len(sys.argv) > 4 else 60.0
    if seconds > WAIT:  # who came together asks together: else one round more or less is counted, by chance
        seconds = math.ceil(seconds / WAIT) * WAIT
    empty = served.memory()
    show("memory of the service before any host came", empty, "MB", 80)
    fleet = await first_contact(served)
    await asyncio.sleep(5)
    before, began = served.used(), time.perf_counter()
    await asyncio.sleep(seconds)
    share = (served.used() - before) / (time.perf_counter() - began)
    count = len(served.secrets)
    show(f"{count} hosts at rest: of a core", share * 100, "%", 5 * count / 10_000)
    show("memory a host", (served.memory() - empty) * 1000 / count, "kB", 30)
    show("turned away or dropped", len(fleet.wrong) + fleet.lost, "", 0)


async def large_host(served: Served, keys: int) -> None:
    """One host with many keys gets one more."""
    fleet = await first_contact(served)
    for number in range(4):
        fleet.contacts.clear()
        before, began = served.used(), time.perf_counter()
        body = {"label": f"more-{number}", "username": "deploy", "publicKey": public_key()}
        await call(served, "POST", "/api/v3/servers/1/ssh/credentials", body)
        await until(fleet, 1, 0, 60)
        show(f"one more on {keys} keys: until the host has it", fleet.contacts[0] - began, "s", keys / 50_000)
        await asyncio.sleep(1.5)
        print(f"  the service used {served.used() - before:.2f} s of processor", flush=True)


def main() -> None:
    """Measure and print."""
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    kind = sys.argv[3] if len(sys.argv) > 3 else "sqlite"
    works: dict[str, Callable[[Served], Any]] = {"wake": wake, "rest": rest, "first-contact": first_contact}
    work = works.get(what)
    if work is None and what != "large-host":
        raise SystemExit(__doc__)

    def measure(url: str, folder: Path) -> None:
        hosts, keys = (number, 0) if work is not None else (1, number)
        with service(url, folder, hosts, keys) as served:
            print(f"{what}, {number}, {kind}", flush=True)
            uvloop.run(work(served) if work is not None else large_host(served, number))

    with tempfile.TemporaryDirectory() as name:
        if kind == "postgresql":
            with running_cluster(durable=True) as cluster:
                measure(cluster.create_database(), Path(name))
        else:
            measure("", Path(name))


if __name__ == "__main__":
    help_asked(__doc__)
    main()
