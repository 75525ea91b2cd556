"""Adds, lists and reads over HTTP, next to a bare Starlette on a database of the same kind, in turn in one run.

    .venv/bin/python bench/api.py [sqlite|postgresql|both] [SECONDS [ROUNDS]]

The bare one makes one durable insert (or one select) and answers a small object. Both have one process, 16 connections
that each wait for an answer before they ask again. Rounds of SECONDS each are made in turn, the bare one's and ours,
until the ratio is known well enough, or ROUNDS (30 unless said) were made and it will not be. Prints requests a second,
the middle and the slowest hundredth of answers, and the ratio of ours to the bare one's; and the processor time that
each process used for a request, whose ratio says more where others use the machine meanwhile: the middle of all rounds,
and how far the ratio may be off, so that two runs say the same within both.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack import app
from keyrack.core.people import tokens
from keyrack.core.people.actors import system_actor
from keyrack.core.workspace import apply as workspace_apply
from keyrack.settings import Settings
from keyrack.store.people import users
from tests.postgres import running_cluster
from tests.services import free_port

CONNECTIONS = 16
FEWEST_ROUNDS, MAX_ROUNDS = 8, 30
SURE = 0.02
"""A ratio is known well enough where the middle of the rounds is off by no more than such a part of it."""
SECRET = "bench-" + secrets.token_hex(16)
TEAM = """[workspace]
name = "acme"
[[users]]
name = "olga"
role = "owner"
[[servers]]
name = "web"
address = "10.0.0.1"
"""
numbers = itertools.count()


def public_key() -> str:
    """A new Ed25519 public key; nobody keeps its other half."""
    key = Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def request(method: str, path: str, body: Any = None) -> bytes:
    """One request as it goes over the wire."""
    content = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {SECRET}\r\nX-Auth-Token: {SECRET}\r\n"
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    return head.encode() + b"\r\n" + content


class Client(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, make: Callable[[], bytes], times: list[float], wrong: list[bytes]) -> None:
        self._make, self._times, self._wrong = make, times, wrong
        self._held = b""
        self._began = 0.0
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the first time."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Ask again once the answer is whole."""
        self._held += data
        head, found, body = self._held.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if len(body) < length:
            return
        self._times.append(time.perf_counter() - self._began)
        if head[9:12] not in (b"200", b"201"):
            self._wrong.append(self._held)
        self._held = b""
        if not self.stopped:
            self._ask()

    def _ask(self) -> None:
        self._began = time.perf_counter()
        self._transport.write(self._make())


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers: its port and its process."""

    port: int
    process: int

    def cpu_seconds(self) -> float:
        """The processor time that it used so far (proc_pid_stat(5), fields 14 and 15)."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests a second, processor time of the server for one, the middle and the slowest hundredth; in seconds."""

    rate: float
    cpu: float
    middle: float
    slow: float

    def __str__(self) -> str:
        """One part of a line."""
        middle, slow = self.middle * 1e3, self.slow * 1e3
        return f"{self.rate:6.0f}/s {self.cpu * 1e3:5.2f} ms cpu p50 {middle:6.1f} p99 {slow:6.1f} ms"


async def _load(
    server: Served, make: Callable[[], bytes], seconds: float
) -> tuple[list[float], float, float, list[bytes]]:
    loop = asyncio.get_running_loop()
    times: list[float] = []
    wrong: list[bytes] = []
    clients = [Client(make, times, wrong) for _ in range(CONNECTIONS)]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", server.port)  # type: ignore[misc]
    await asyncio.sleep(seconds / 4)  # to get warm
    times.clear()
    began, used = time.perf_counter(), server.cpu_seconds()
    await asyncio.sleep(seconds)
    taken, used = time.perf_counter() - began, server.cpu_seconds() - used
    kept = list(times)
    for client in clients:
        client.stopped = True
    await asyncio.sleep(0.3)
    return kept, taken, used, wrong


@dataclass(frozen=True, slots=True)
class Ratio:
    """The middle of what rounds said, and the part of it by which another run's may differ from the true one."""

    middle: float
    off: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Ratio:
        """Of the ratios of at least two rounds: 95 of 100 such intervals around a middle hold the true one."""
        low, middle, high = statistics.quantiles(rounds, n=4)
        return cls(middle, 1.57 * (high - low) / len(rounds) ** 0.5 / middle)

    def __str__(self) -> str:
        """As the page has it."""
        return f"{self.middle:.3f} ± {self.off:.1%}".replace("%", " %")


@dataclass(frozen=True, slots=True)
class Compared:
    """Rounds of the bare server and of ours, in turn."""

    bare: list[Measured]
    ours: list[Measured]

    @property
    def by_clock(self) -> Ratio:
        """Of requests a second."""
        return Ratio.of([one.rate / other.rate for one, other in zip(self.ours, self.bare, strict=True)])

    @property
    def by_processor(self) -> Ratio:
        """Of the processor time of a request."""
        return Ratio.of([other.cpu / one.cpu for one, other in zip(self.ours, self.bare, strict=True)])

    @property
    def is_sure(self) -> bool:
        """Whether further rounds would say the same."""
        return len(self.ours) >= FEWEST_ROUNDS and max(self.by_clock.off, self.by_processor.off) <= SURE


def compare(
    bare: Served, ours: Served, make_bare: Callable[[], bytes], make: Callable[[], bytes], seconds: float, most: int
) -> Compared:
    """Rounds of so many seconds each, as many as it takes, at least two and at most so many."""
    found = Compared([], [])
    while len(found.ours) < most and not found.is_sure:
        found.bare.append(measure(bare, make_bare, seconds))
        found.ours.append(measure(ours, make, seconds))
    return found


def middle_of(rounds: Sequence[Measured]) -> Measured:
    """What the middle one of rounds says of each."""
    return Measured(*(statistics.median(values) for values in zip(*map(astuple, rounds), strict=True)))


def measure(server: Served, make: Callable[[], bytes], seconds: float) -> Measured:
    """How a server answers so many requests at once."""
    times, taken, used, wrong = asyncio.run(_load(server, make, seconds))
    if wrong:
        raise SystemExit(f"{len(wrong)} answers were not what was asked for, such as:\n{wrong[0][:600]!r}")
    at = sorted(times)
    if not at:
        raise SystemExit(f"there was no answer within {seconds} s; is the machine this busy? Give more seconds a round")
    return Measured(len(at) / taken, used / len(at), statistics.median(at), at[len(at) * 99 // 100])


BARE = """
import sqlite3, sys
import psycopg
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
import uvicorn
url, port = sys.argv[1:]
if url.startswith("postgresql"):
    # As many of them as there are requests at once, each awaited.
    import asyncio
    free = None
    async def ask(sql, values):
        global free
        if free is None:
            free = asyncio.Queue()
            for _ in range(16):
                free.put_nowait(await psycopg.AsyncConnection.connect(url, autocommit=True))
        connection = await free.get()
        try:
            return await (await connection.execute(sql.replace("?", "%s"), values)).fetchone()
        finally:
            free.put_nowait(connection)
else:
    connection = sqlite3.connect(url, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    async def ask(sql, values):
        return connection.execute(sql, values).fetchone()
async def add(request):
    body = await request.json()
    row = await ask("INSERT INTO bare (label, line) VALUES (?, ?) RETURNING id", (body["label"], body["publicKey"]))
    return JSONResponse({"id": row[0], **body})
async def show(request):
    row = await ask("SELECT id, label, line FROM bare WHERE id = ?", (int(request.path_params["id"]),))
    return JSONResponse({"id": row[0], "label": row[1], "publicKey": row[2]})
app = Starlette(routes=[Route("/bare", add, methods=["POST"]), Route("/bare/{id}", show)])
uvicorn.run(app, host="127.0.0.1", port=int(port), access_log=False, log_level="warning", loop="uvloop")
"""
TABLE = "CREATE TABLE bare (id INTEGER PRIMARY KEY{0}, label TEXT, line TEXT)"


def waited(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a port answers."""
    import socket

    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
            assert process.poll() is None
    raise SystemExit("the server did not start")


@contextmanager
def bare(url: str, folder: Path) -> Iterator[Served]:
    """A bare Starlette on a database."""
    import psycopg

    where = str(folder / "bare.db")
    if url:
        where = url
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(TABLE.format(" GENERATED BY DEFAULT AS IDENTITY"))
            connection.execute("INSERT INTO bare (label, line) VALUES ('first', 'line')")
    else:
        file = sqlite3.connect(where)
        file.execute(TABLE.format(""))
        file.execute("INSERT INTO bare (label, line) VALUES ('first', 'line')")
        file.commit()
        file.close()
    (folder / "bare.py").write_text(BARE)
    port = free_port()
    process = subprocess.Popen([sys.executable, str(folder / "bare.py"), where, str(port)])
    try:
        waited(process, port)
        yield Served(port, process.pid)
    finally:
        process.terminate()
        process.wait()


@contextmanager
def ours(url: str, folder: Path) -> Iterator[Served]:
    """The service on a database with one server and an owner."""
    settings = Settings(data=folder / "data", database=url, max_user_keys=10**6)
    instance = app.open_instance(settings)
    workspace_apply.apply(instance, TEAM, {})
    owner = instance.database.read(lambda connection: users.user(connection, 1))
    assert owner is not None
    tokens.create(instance, system_actor(1), owner, name="bench", scopes=("*",), secret=SECRET)
    instance.database.close()
    port = free_port()
    words = ["-m", "keyrack.cli.main", "serve", "--data", str(folder / "data"), "--listen", f"127.0.0.1:{port}"]
    environment = {
        **os.environ,
        "KEYRACK_RATE_LIMIT": "100000000",
        "KEYRACK_MAX_USER_KEYS": "1000000",
        "KEYRACK_DATABASE": url,
    }
    log = (folder / "log").open("wb")
    process = subprocess.Popen([sys.executable, *words], env=environment, stderr=log, stdout=log)
    try:
        waited(process, port)
        yield Served(port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def run(kind: str, seconds: float, most: int = MAX_ROUNDS) -> None:
    """One kind of database."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "postgresql":
            with running_cluster(durable=True) as cluster:
                _compare(kind, cluster.create_database(), cluster.create_database(), folder, seconds, most)
        else:
            _compare(kind, "", "", folder, seconds, most)


def _compare(kind: str, url: str, other: str, folder: Path, seconds: float, most: int) -> None:
    with ours(url, folder) as service, bare(other, folder) as plain:

        def add() -> bytes:
            label = f"laptop-{next(numbers)}"
            body = {"label": label, "username": "root", "publicKey": public_key()}
            return request("POST", "/api/v3/servers/1/ssh/credentials", body)

        def bare_add() -> bytes:
            return request("POST", "/bare", {"label": f"laptop-{next(numbers)}", "publicKey": public_key()})

        def add_key() -> bytes:
            return request("POST", "/v4/user/keys", {"title": f"laptop-{next(numbers)}", "key": public_key()})

        def read(path: str) -> Callable[[], bytes]:
            return lambda: request("GET", path)

        rows: list[tuple[str, Callable[[], bytes], Callable[[], bytes]]] = [
            ("add a credential", add, bare_add),
            ("get a credential", read("/api/v3/servers/1/ssh/credentials/1"), read("/bare/1")),
            ("list a page", read("/api/v3/servers/1/ssh/credentials"), read("/bare/1")),
            ("add a user key", add_key, bare_add),
            ("list user keys", read("/v4/user/keys?limit=20"), read("/bare/1")),
        ]
        for name, make, make_plain in rows:
            found = compare(plain, service, make_plain, make, seconds, most)
            words = f"ours {middle_of(found.ours)}   bare {middle_of(found.bare)}   {len(found.ours)} rounds each"
            ratios = f"ratio {found.by_clock}, of processor time {found.by_processor}"
            print(f"{kind:10} {name:16} {words}   {ratios}", flush=True)


def main() -> None:
    """Measure and print."""
    given = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    kind = given[0] if given else "both"
    seconds = float(given[1]) if len(given) > 1 else 2.0
    most = int(given[2]) if len(given) > 2 else MAX_ROUNDS
    for one in ("sqlite", "postgresql") if kind == "both" else (kind,):
        run(one, seconds, most)


if __name__ == "__main__":
    help_asked(__doc__)
    main()
