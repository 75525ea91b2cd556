"""Calls of a service whose network to PostgreSQL fails by chance, and what must hold meanwhile and afterwards."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from keyrack.core.audit import webhooks
from keyrack.git.authorizer import Authorizer, Programs
from keyrack.ssh.public_key import parse
from keyrack.store.engine import connect, postgresql_session, silence
from tests.core.keys_for_tests import fresh_line
from tests.fault_proxy import WAYS, FaultProxy
from tests.services import TEAM, Service, running, settings_for
from tests.waiting import wait_until
from tests.web.runcloud_team import Agent
from tests.web.test_iam import sign_in, works
from tests.web.test_native import call
from tests.web.test_nonblocking import KEYS
from tests.web.test_runcloud import add as add_credential
from tests.web.test_webhooks import Receiver, receiving

BOUND = 60.0  # for what takes less than ten seconds here on a machine at rest
CALLERS = 6
READ = (f"{KEYS}/1", KEYS, "/readyz", f"{KEYS}/1", f"{KEYS}?page=2")


FIRST_BESIDE, KINDS = 15, 19  # changes and reads, and what is beside them
GOOD = {200, 201, 204}


class Beside:
    """What else reaches the database: a host, Git's authorizer, somebody who signs in, and a receiver of events."""

    def __init__(self, service: Service, place: Path, receiver: Receiver) -> None:
        """place: where Git's authorizer listens."""
        self._service, self._place = service, place
        self.receiver = receiver
        self.tokens: list[str] = []
        self._agent = Agent(service, 1)
        self._revision = int(self._agent.document()["revision"])
        line = fresh_line().strip()
        call(
            service, "POST", "/people/me/keys", {"title": "git", "public_key": line}, token="token-of-alice", status=201
        )
        self._fingerprint = parse(line).fingerprint
        call(service, "POST", "/webhooks", {"url": receiver.url, "level": "info"}, status=201)

    def ask(self, kind: int) -> int:
        """One call; its status, as HTTP has it."""
        return (self._sign_in, self._wait, self._report, self._line)[kind % 4]()

    def _sign_in(self) -> int:
        answer = sign_in(self._service)
        if answer.status_code == 201:
            self.tokens.append(answer.headers["X-Subject-Token"])
        return answer.status_code

    def _wait(self) -> int:
        path = f"/agent/v1/document?revision={self._revision}&wait=1"
        answer = self._service.call("GET", path, token=self._agent.secret)
        if answer.status_code == 200:
            self._revision = int(json.loads(answer.json()["document"])["revision"])
        return answer.status_code

    def _report(self) -> int:
        report = {"revision": self._revision, "state": "applied"}
        return self._service.call("POST", "/agent/v1/report", token=self._agent.secret, json=report).status_code

    def _line(self) -> int:
        """What Git's sshd asks at a login; 503 where the authorizer says that it does not know, 404 for no such key."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(BOUND)
            asked.connect(str(self._place))
            words = b"line\0" + self._fingerprint.encode() + b"\0"
            asked.sendall(struct.pack(">I", len(words)) + words)
            with asked.makefile("rb") as answers:
                (length,) = struct.unpack(">I", answers.read(4))
                kind = answers.read(length).split(b"\0")[0]
        return {b"line": 200, b"away": 503, b"none": 404}[kind]


@dataclass
class Calls:
    """What callers asked, and what they were answered."""

    service: Service
    beside: Beside
    made: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)
    longest: float = 0.0
    hung: int = 0
    whole_again: float = 0.0
    """The most seconds from when the network is well to when a change is taken."""

    def anew(self) -> Calls:
        """The same callers, who asked nothing yet."""
        return Calls(self.service, self.beside)

    def once(self, name: str, kind: int) -> int:
        """One call; its status."""
        began = time.monotonic()
        if kind % 3 == 0 and kind < FIRST_BESIDE:
            self.asked.add(name)
            status: int = add_credential(self.service, label=name, publicKey=fresh_line()).status_code
            if status == 200:
                self.made.add(name)
        elif kind >= FIRST_BESIDE:
            status = self.beside.ask(kind)
        else:
            path = READ[kind % len(READ)]
            status = self.service.call("GET", path, token="token-of-olga").status_code
        self.statuses.append(status)
        self.longest = max(self.longest, time.monotonic() - began)
        return status

    def while_set(self, going: threading.Event, name: str, chance: random.Random) -> None:
        """Call again and again."""
        number = 0
        while going.is_set():
            number += 1
            self.once(f"{name}-{number}", chance.randrange(KINDS))


@contextmanager
def behind_a_proxy(cluster: Any, template: str, folder: Path, seed: int) -> Iterator[tuple[FaultProxy, Calls, str]]:
    """Who calls a service that reaches its database through a proxy, and the database's own address."""
    own = cluster.create_database(template)
    name = psycopg.conninfo.conninfo_to_dict(own)["dbname"]
    proxy = FaultProxy(Path(cluster.folder) / ".s.PGSQL.5432", seed)
    try:
        url = f"postgresql://keyrack@127.0.0.1:{proxy.port}/{name}"
        settings = settings_for(folder / "data", url, max_user_keys=100_000, webhook_networks="127.0.0.0/8")
        with ExitStack() as stack:
            receiver = stack.enter_context(receiving())
            service = stack.enter_context(running(settings))
            service.apply(TEAM)
            authorizer = Authorizer(service.instance, folder / "git", Programs("git", {}, folder, "true"))
            authorizer.start()
            stack.callback(authorizer.stop)
            yield proxy, Calls(service, Beside(service, folder / "git", receiver)), own
    finally:
        proxy.stop()
        cluster.drop_database(own)


def rest(service: Service) -> tuple[int, ...]:
    """What must be as before after all is over: places in pools, and turns that are taken."""
    database: Any = service.instance.database
    readers, writer = database._readers, database._writer
    pools = (readers._pool, readers._for_fibers, writer._pool, writer._for_fibers)
    return (*(len(pool._free) for pool in pools), len(writer._queues), len(readers._shared._gathered))


def one_round(proxy: FaultProxy, calls: Calls, seed: int, ways: Sequence[str] = ()) -> None:
    """Have it fail for a moment while all call, and see that it goes on by itself. ways: how, or by chance."""
    chance = random.Random(seed)
    going = threading.Event()
    going.set()
    with ThreadPoolExecutor(CALLERS) as pool:
        names = [f"round-{seed}-{number}" for number in range(CALLERS)]
        callers = [pool.submit(calls.while_set, going, name, random.Random(name)) for name in names]
        time.sleep(0.1)
        drawn = chance.sample(WAYS, chance.randrange(1, 4))
        proxy.misbehave(*(ways or drawn), old_too=chance.random() < 0.8)
        time.sleep(chance.uniform(0.1, 0.6))
        proxy.behave()
        well = time.monotonic()
        going.clear()
        for one in callers:
            try:
                one.result(max(0.1, well + BOUND - time.monotonic()))
            except TimeoutError:
                calls.hung += 1
    numbers = iter(range(1_000_000))
    wait_until(lambda: calls.once(f"after-{seed}-{next(numbers)}", 0) == 200, "changes to be taken again", BOUND)
    calls.whole_again = max(calls.whole_again, time.monotonic() - well)


_WITHOUT_EVENT = """
    SELECT label FROM credentials WHERE NOT EXISTS (
        SELECT FROM events
        WHERE action = 'credentials:write' AND outcome = 'done'
        AND target_kind = 'credential' AND target_id = credentials.id)
"""


@dataclass(frozen=True)
class Found:
    """What is wrong with the changes that were acknowledged: names of each kind, all empty where nothing is."""

    lost: frozenset[str]
    twice: frozenset[str]
    without_event: frozenset[str]
    untold: frozenset[str]
    """Whose event did not come to the receiver."""


def found(calls: Calls, url: str) -> Found:
    """Compare what was acknowledged with what is there, once the receiver got everything that it is to get."""
    with closing(psycopg.connect(url)) as other:
        there = [label for (label,) in other.execute("SELECT label FROM credentials").fetchall()]
        without_event = frozenset(label for (label,) in other.execute(_WITHOUT_EVENT).fetchall())

    def untold() -> frozenset[str]:
        said = " ".join(event["summary"] for event in calls.beside.receiver.events())
        return frozenset(name for name in calls.made if f" {name} " not in said)

    until = time.monotonic() + BOUND
    while untold() and time.monotonic() < until:
        time.sleep(0.1)
    twice = frozenset(label for label in there if there.count(label) > 1)
    return Found(frozenset(calls.made - set(there)), twice, without_event, untold())


def held(proxy: FaultProxy) -> tuple[int, int]:
    """Descriptors and threads of this process but for the proxy's: two and one for each connection."""
    return len(os.listdir("/proc/self/fd")) - 2 * proxy.open, threading.active_count() - proxy.open


def rounds(proxy: FaultProxy, calls: Calls, url: str, seeds: range, ways: Sequence[str] = ()) -> Found:
    """All rounds; what is wrong after them. Raises AssertionError for an answer that is none of its kind."""
    for kind in range(KINDS):
        assert calls.once(f"first-{seeds.start}-{kind}", kind) in GOOD, kind
    before = rest(calls.service)
    for seed in seeds:
        one_round(proxy, calls, seed, ways)
        assert set(calls.statuses) <= {*GOOD, 503}, (seed, set(calls.statuses))
    wait_until(lambda: rest(calls.service) == before, f"places to come back: {before}")
    assert all(works(calls.service, token) for token in calls.beside.tokens[-5:])
    return found(calls, url)


@contextmanager
def short_bounds() -> Iterator[None]:
    """The product's bounds meanwhile, in seconds where they are minutes."""
    ours = connect._postgresql_arguments
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(silence, "SECONDS", 1.0)
        patched.setattr(webhooks, "LEASE", timedelta(seconds=3))
        patched.setattr(postgresql_session, "ORPHAN_SECONDS", 1)
        patched.setattr(connect, "_postgresql_arguments", lambda: {**ours(), "connect_timeout": 2})
        yield
