"""A day of a fleet in some minutes: hosts that wait, changes, sign-ins and Git, and what of the service grows.

    .venv/bin/python bench/day.py [HOSTS [MINUTES [CHANGES]]] [sqlite|postgresql]

HOSTS (1,000 unless said) wait for their documents for MINUTES (20) while CHANGES (50) a second are made: a key is put
on a host chosen by chance, listed, taken away again. Each host was changed once before, as in a fleet that has run for
long: of what changes the service keeps what it has looked through, up to its bounds. Somebody signs in with a password
each second. People clone, fetch and push over SSH, with keys that they have, with one that was just registered, and
with one that was just deleted, which must be refused (git_day.py). After each tenth of the time a line says how quick
changes and Git were, how much memory and how many descriptors all processes of the service have that were there all
that time, how much of a processor they and what they started took, and how much of the machine's processors nobody
wanted.

What is flat in the last half ends this well; growth of memory or descriptors there by more than a tenth, a p99 that
doubles, an answer that is no success, a Git operation that fails, a deleted key that opens, or a host that was turned
away does not. Times by the clock are compared only where the machine had some of its processors to spare.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

import git_day
from api import public_key, request
from git_day import GitServed, Operations
from git_servers import family
from hosts import Fleet, Served, connect, quantile, service

from tests.postgres import running_cluster

SLICES = 10
CONNECTIONS = 16
FEWEST = 20
"""Of fewer calls in a slice the slowest hundredth says nothing."""
SPARE = 20.0
"""Times of a slice are judged where so many percent of the machine's processors were idle."""
PASSWORD = "a long password of olga's"


@dataclass
class Made:
    """What was asked for in a slice."""

    seconds: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)


class Connection:
    """One that asks and waits for the whole answer."""

    def __init__(self, served: Served) -> None:
        self._port = served.port
        self._opened: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, made: Made, method: str, path: str, body: Any = None) -> Any:
        """One call; its answer where it is a success. A connection that was closed, as it was idle, is opened anew."""
        if self._opened is None or self._opened[0].at_eof():
            if self._opened is not None:
                self._opened[1].close()
            self._opened = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._opened
        began = time.perf_counter()
        writer.write(request(method, path, body))
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        content = await reader.readexactly(length)
        made.seconds.append(time.perf_counter() - began)
        status = head.split()[1].decode()
        made.answers[status if status.startswith("2") else f"{status} {method} {content[:120]!r}"] += 1
        return json.loads(content) if status.startswith("2") and content else {}


async def change_one(connection: Connection, made: Made, server_id: int, label: str) -> None:
    """Put a key on a host, look, take it away."""
    path = f"/api/v3/servers/{server_id}/ssh/credentials"
    body = {"label": label, "username": "deploy", "publicKey": public_key()}
    added = await connection.call(made, "POST", path, body)
    await connection.call(made, "GET", path)
    if "id" in added:
        await connection.call(made, "DELETE", f"{path}/{added['id']}")


async def change_each_once(served: Served, made: Made) -> None:
    """Change each host once, as fast as the service answers, so that what it keeps of each is there from then on."""

    async def change_some(first: int) -> None:
        connection = Connection(served)
        for server_id in range(first, len(served.secrets) + 1, CONNECTIONS):
            await change_one(connection, made, server_id, f"first-{server_id}")

    await asyncio.gather(*(change_some(1 + first) for first in range(CONNECTIONS)))


async def change(served: Served, made: list[Made], pace: float, stopping: asyncio.Event) -> None:
    """Change a host chosen by chance, again and again, at a pace of so many calls a second."""
    connection, chance = Connection(served), random.Random(os.urandom(8))
    await asyncio.sleep(chance.random() / pace)
    count = len(served.secrets)
    due = time.perf_counter()
    while not stopping.is_set():
        await change_one(connection, made[-1], chance.randrange(count) + 1, f"k-{chance.randrange(10**12)}")
        due += 3 / pace
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


async def sign_in(served: Served, made: list[Made], stopping: asyncio.Event) -> None:
    """A password each second."""
    user = {"name": "olga", "password": PASSWORD, "domain": {"name": "acme"}}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}}}
    connection, apart = Connection(served), Made()
    while not stopping.is_set():
        await connection.call(apart, "POST", "/v3/auth/tokens", body)
        made[-1].answers.update(apart.answers)
        apart.answers.clear()
        await asyncio.sleep(1)


@dataclass(frozen=True, slots=True)
class Taken:
    """What the processes of the service have and used. lasting: they by number and start; memory: resident megabytes;
    processor: seconds, with those of what ended; idle, all: of the machine's processors since it was started.
    """

    lasting: frozenset[tuple[int, str]]
    memory: float
    descriptors: int
    processor: float
    idle: float
    all: float


def taken(roots: list[int], before: frozenset[tuple[int, str]] | None = None) -> Taken:
    """Of these processes and all below them. before: of those alone that were there already, so that a clone that is
    under way does not count, and one that never ends does.
    """
    lasting, memory, files, ticks = set(), 0.0, 0, 0
    for pid in {one for root in roots for one in family(root)}:
        with suppress(OSError):  # it ended meanwhile
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            opened = len(os.listdir(f"/proc/{pid}/fd"))
            ticks += sum(int(one) for one in fields[11:15])
            lasting.add((pid, fields[19]))
            if before is None or (pid, fields[19]) in before:
                memory += pages * os.sysconf("SC_PAGE_SIZE") / 1e6
                files += opened
    machine = [float(one) for one in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    processor = ticks / os.sysconf("SC_CLK_TCK")
    return Taken(frozenset(lasting), memory, files, processor, machine[3] + machine[4], sum(machine))


@dataclass
class Slice:
    """A tenth of the day, as it is judged. p99, git_p99: None where they are not compared."""

    p99: float | None
    git_p99: float | None
    memory: float
    descriptors: float


async def day(served: Served, git: GitServed, folder: Path, minutes: float, changes: float) -> list[str]:
    """All of it at once; what was wrong."""
    fleet, stopping, made, operations = Fleet(), asyncio.Event(), [Made()], [Operations()]
    connection, apart = Connection(served), Made()
    taking_turns = asyncio.Lock()

    async def ask(method: str, path: str, body: Any) -> Any:
        async with taking_turns:
            answer = await connection.call(apart, method, path, body)
            made[-1].answers.update(apart.answers)
            apart.answers.clear()
            return answer

    people = await git_day.begin(git, folder, ask, operations)
    await connect(served, fleet)
    begun = Made()
    await change_each_once(served, begun)
    made[-1].answers.update(begun.answers)
    tasks = [asyncio.create_task(change(served, made, changes / CONNECTIONS, stopping)) for _ in range(CONNECTIONS)]
    tasks.append(asyncio.create_task(sign_in(served, made, stopping)))
    tasks += [asyncio.create_task(person.work(stopping)) for person in people]
    slices, answers, wrong_git = await _slices([served.pid, git.pid], fleet, made, operations, minutes)
    stopping.set()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    # What ended after the last slice, such as a clone that took long.
    answers.update(made[-1].answers)
    wrong_git.update(operations[-1].wrong)
    wrong = [f"{count} × {words}" for words, count in answers.items() if not words.startswith("2")]
    wrong += [f"{count} × {words}" for words, count in wrong_git.items()]
    wrong += [repr(one) for one in ended if isinstance(one, BaseException)]
    wrong += [f"{len(fleet.wrong)} hosts were turned away: {fleet.wrong[0]}"] if fleet.wrong else []
    return wrong + grown(slices)


async def _slices(
    roots: list[int], fleet: Fleet, made: list[Made], operations: list[Operations], minutes: float
) -> tuple[list[Slice], Counter[str], Counter[str]]:
    """Print a line for each tenth of the time; what is judged, all answers, and what was wrong with Git."""
    print(
        "| part | calls | p50 ms | p99 ms | Git operations | p50 ms | p99 ms | deleted keys refused | failed "
        "| documents | memory MB | descriptors | of a core | idle |"
    )
    print("|" + "---|" * 14, flush=True)
    slices, answers, wrong = [], Counter[str](), Counter[str]()
    for number in range(SLICES):
        contacts, before, began = len(fleet.contacts), taken(roots), time.perf_counter()
        await asyncio.sleep(minutes * 60 / SLICES)
        done, git = made[-1], operations[-1]
        made.append(Made())
        operations.append(Operations())
        answers.update(done.answers)
        wrong.update(git.wrong)
        now = taken(roots, before.lasting)
        share = 100 * (now.processor - before.processor) / (time.perf_counter() - began)
        idle = 100 * (now.idle - before.idle) / max(1.0, now.all - before.all)
        p50, p99, git_p50, git_p99 = (
            1000 * quantile(seconds, part) for seconds in (done.seconds, git.seconds) for part in (0.5, 0.99)
        )
        api, over_ssh = (
            value if idle >= SPARE and len(seconds) >= FEWEST else None
            for value, seconds in ((p99, done.seconds), (git_p99, git.seconds))
        )
        slices.append(Slice(api, over_ssh, now.memory, now.descriptors))
        print(
            f"| {number + 1} of {SLICES} | {len(done.seconds)} | {p50:.1f} | {p99:.1f} | {len(git.seconds)} "
            f"| {git_p50:.0f} | {git_p99:.0f} | {git.refused} | {git.wrong.total()} | {len(fleet.contacts) - contacts} "
            f"| {now.memory:.0f} | {now.descriptors} | {share:.0f} % | {idle:.0f} % |",
            flush=True,
        )
    return slices, answers, wrong


def grown(slices: list[Slice]) -> list[str]:
    """What was not flat. Of memory and descriptors the last counts; of times the middle ones of either half."""
    half, found = SLICES // 2, []
    for name in ("memory", "descriptors"):
        middle, last = getattr(slices[half], name), getattr(slices[-1], name)
        found += [f"{name} grew from {middle:.0f} to {last:.0f}"] if last > middle * 1.1 else []
    for name in ("p99", "git_p99"):
        # In the first the hosts still come.
        of_halves = [
            [value for one in some if (value := getattr(one, name)) is not None]
            for some in (slices[1:half], slices[half:])
        ]
        if all(of_halves):
            first, last = (statistics.median(some) for some in of_halves)
            found += [f"{name} grew from {first:.0f} to {last:.0f} ms"] if last > max(2 * first, first + 100) else []
    return found


def main() -> int:
    """Serve, and spend the day."""
    words = [word for word in sys.argv[1:] if word not in ("sqlite", "postgresql")]
    hosts, minutes = int(words[0]) if words else 1000, float(words[1]) if words[1:] else 20.0
    changes = float(words[2]) if words[2:] else 50.0
    uvloop.install()
    # Not below /tmp, where sshd takes no keys.
    parent = "/var/lib" if os.geteuid() == 0 else str(Path.home())
    with tempfile.TemporaryDirectory(dir=parent, prefix="keyrack-bench-") as name, ExitStack() as stack:
        Path(name).chmod(0o755)
        url = f"sqlite:///{name}/keyrack.db"
        if "postgresql" in sys.argv:
            url = stack.enter_context(running_cluster(durable=True)).create_database()
        served = stack.enter_context(service(url, Path(name), hosts, password=PASSWORD))
        git = stack.enter_context(git_day.git_service(Path(name) / "data", url))
        wrong = asyncio.run(day(served, git, Path(name) / "people", minutes, changes))
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
