"""A day of a fleet in some minutes: hosts that wait, changes, sign-ins, and what of the service grows meanwhile.

    .venv/bin/python bench/day.py [HOSTS [MINUTES [CHANGES]]] [sqlite|postgresql]

HOSTS (1,000 unless said) wait for their documents for MINUTES (20) while CHANGES (50) a second are made: a key is put
on a host chosen by chance, listed, taken away again. Somebody signs in with a password each second. After each tenth of
the time a line says how quick changes were, how much memory and how many descriptors the service has, and how much of
the processor it took. What is flat in the last half ends this well; growth of memory or descriptors there by more than
a tenth, an answer that is no success, or a host that was turned away does not.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).parent.parent))

from api import public_key, request
from hosts import Fleet, Served, connect, quantile, service

from tests.postgres import running_cluster

SLICES = 10
CONNECTIONS = 16
PASSWORD = "a long password of olga's"


@dataclass
class Made:
    """What was asked for in a slice."""

    seconds: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)


class Connection:
    """One that asks and waits for the whole answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, served: Served) -> Connection:
        """A new one."""
        return cls(*await asyncio.open_connection("127.0.0.1", served.port))

    async def call(self, made: Made, method: str, path: str, body: Any = None) -> Any:
        """One call; its answer where it is a success."""
        began = time.perf_counter()
        self._writer.write(request(method, path, body))
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        content = await self._reader.readexactly(length)
        made.seconds.append(time.perf_counter() - began)
        status = head.split()[1].decode()
        made.answers[status if status.startswith("2") else f"{status} {method} {content[:120]!r}"] += 1
        return json.loads(content) if status.startswith("2") and content else {}


async def change(served: Served, made: list[Made], pace: float, stopping: asyncio.Event) -> None:
    """Put a key on a host, look, take it away: again and again, at a pace of so many calls a second."""
    connection, chance = await Connection.to(served), random.Random(os.urandom(8))
    await asyncio.sleep(chance.random() / pace)
    count = len(served.secrets)
    due = time.perf_counter()
    while not stopping.is_set():
        path = f"/api/v3/servers/{chance.randrange(count) + 1}/ssh/credentials"
        body = {"label": f"k-{chance.randrange(10**12)}", "username": "deploy", "publicKey": public_key()}
        added = await connection.call(made[-1], "POST", path, body)
        await connection.call(made[-1], "GET", path)
        if "id" in added:
            await connection.call(made[-1], "DELETE", f"{path}/{added['id']}")
        due += 3 / pace
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def sign_in(served: Served, made: list[Made], stopping: asyncio.Event) -> None:
    """A password each second."""
    user = {"name": "olga", "password": PASSWORD, "domain": {"name": "acme"}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}
    connection, apart = await Connection.to(served), Made()
    while not stopping.is_set():
        await connection.call(apart, "POST", "/v3/auth/tokens", body)
        made[-1].answers.update(apart.answers)
        apart.answers.clear()
        await asyncio.sleep(1)


def descriptors(served: Served) -> int:
    """How many the service has open."""
    return len(os.listdir(f"/proc/{served.pid}/fd"))


async def day(served: Served, minutes: float, changes: float) -> list[str]:
    """All of it at once; what was wrong."""
    fleet, stopping, made = Fleet(), asyncio.Event(), [Made()]
    await connect(served, fleet)
    tasks = [asyncio.create_task(change(served, made, changes / CONNECTIONS, stopping)) for _ in range(CONNECTIONS)]
    tasks.append(asyncio.create_task(sign_in(served, made, stopping)))
    print("| part | calls | p50 ms | p99 ms | documents | memory MB | descriptors | of a core |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    memory, files, answers = [], [], Counter[str]()
    for number in range(SLICES):
        heard, used, began = len(fleet.heard), served.used(), time.perf_counter()
        await asyncio.sleep(minutes * 60 / SLICES)
        done = made[-1]
        made.append(Made())
        answers.update(done.answers)
        memory.append(served.memory())
        files.append(descriptors(served))
        share = 100 * (served.used() - used) / (time.perf_counter() - began)
        at = [1000 * quantile(done.seconds, share_of) for share_of in (0.5, 0.99)]
        documents = len(fleet.heard) - heard
        print(
            f"| {number + 1} of {SLICES} | {len(done.seconds)} | {at[0]:.1f} | {at[1]:.1f} | {documents} "
            f"| {memory[-1]:.0f} | {files[-1]} | {share:.0f} % |",
            flush=True,
        )
    stopping.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    wrong = [f"{count} × {words}" for words, count in answers.items() if not words.startswith("2")]
    wrong += [repr(one) for one in ended if isinstance(one, BaseException)]
    wrong += [f"{len(fleet.wrong)} hosts were turned away: {fleet.wrong[0]}"] if fleet.wrong else []
    half = SLICES // 2
    wrong += [f"{name} grew from {values[half]:.0f} to {values[-1]:.0f}" for name, values in (
        ("memory", memory), ("descriptors", [float(one) for one in files])
    ) if values[-1] > values[half] * 1.1]  # fmt: skip
    return wrong


def main() -> int:
    """Serve, and spend the day."""
    words = [word for word in sys.argv[1:] if word not in ("sqlite", "postgresql")]
    hosts, minutes = int(words[0]) if words else 1000, float(words[1]) if words[1:] else 20.0
    changes = float(words[2]) if words[2:] else 50.0
    uvloop.install()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        url = f"sqlite:///{name}/keyrack.db"
        if "postgresql" in sys.argv:
            url = stack.enter_context(running_cluster(durable=True)).create_database()
        served = stack.enter_context(service(url, Path(name), hosts, password=PASSWORD))
        wrong = asyncio.run(day(served, minutes, changes))
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
