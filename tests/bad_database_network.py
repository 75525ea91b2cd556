"""Calls of a service whose network to PostgreSQL fails by chance, and what must be so meanwhile and afterwards."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from keyrack.store.engine import connect, postgresql_session, silence
from tests.core.keys_for_tests import fresh_line
from tests.fault_proxy import WAYS, FaultProxy
from tests.services import TEAM, Service, running, settings_for
from tests.waiting import wait_until
from tests.web.test_at_once import KEYS
from tests.web.test_runcloud import add as add_credential

BOUND = 60.0  # for what takes less than ten seconds here on a machine at rest
CALLERS = 6
READ = (f"{KEYS}/1", KEYS, "/readyz", f"{KEYS}/1", f"{KEYS}?page=2")


@dataclass
class Calls:
    """What callers asked, and what they were answered."""

    service: Service
    made: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    statuses: list[int] = field(default_factory=list)
    longest: float = 0.0

    def once(self, name: str, kind: int) -> int:
        """One call; its status."""
        began = time.monotonic()
        if kind % 3 == 0:
            self.asked.add(name)
            status: int = add_credential(self.service, label=name, publicKey=fresh_line()).status_code
            if status == 200:
                self.made.add(name)
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
            self.once(f"{name}-{number}", chance.randrange(15))


@contextmanager
def behind_a_proxy(cluster: Any, template: str, folder: Path, seed: int) -> Iterator[tuple[FaultProxy, Service, str]]:
    """A service that reaches its database through a proxy."""
    own = cluster.create_database(template)
    name = psycopg.conninfo.conninfo_to_dict(own)["dbname"]
    proxy = FaultProxy(Path(cluster.folder) / ".s.PGSQL.5432", seed)
    try:
        url = f"postgresql://keyrack@127.0.0.1:{proxy.port}/{name}"
        with running(settings_for(folder / "data", url, max_user_keys=100_000)) as service:
            service.apply(TEAM)
            yield proxy, service, own
    finally:
        proxy.stop()
        cluster.drop_database(own)


def rest(service: Service) -> tuple[int, ...]:
    """What must be as before after all is over: places in pools, and turns that are taken."""
    database: Any = service.instance.database
    readers, writer = database._readers, database._writer
    pools = (readers._pool, readers._for_fibers, writer._pool, writer._for_fibers)
    return (*(len(pool._free) for pool in pools), len(writer._queues), len(readers._shared._gathered))


def one_round(proxy: FaultProxy, calls: Calls, seed: int) -> None:
    """Have it fail for a moment while all call, and see that it goes on by itself."""
    chance = random.Random(seed)
    going = threading.Event()
    going.set()
    with ThreadPoolExecutor(CALLERS) as pool:
        names = [f"round-{seed}-{number}" for number in range(CALLERS)]
        callers = [pool.submit(calls.while_set, going, name, random.Random(name)) for name in names]
        time.sleep(0.1)
        proxy.misbehave(*chance.sample(WAYS, chance.randrange(1, 4)), old_too=chance.random() < 0.8)
        time.sleep(chance.uniform(0.1, 0.6))
        proxy.behave()
        going.clear()
        until = time.monotonic() + BOUND
        for one in callers:
            one.result(max(0.1, until - time.monotonic()))
    numbers = iter(range(1_000_000))
    wait_until(lambda: calls.once(f"after-{seed}-{next(numbers)}", 0) == 200, "changes to be taken again", BOUND)


def labels(url: str) -> list[str]:
    with closing(psycopg.connect(url)) as other:
        return [label for (label,) in other.execute("SELECT label FROM credentials").fetchall()]


def held(proxy: FaultProxy) -> tuple[int, int]:
    """Descriptors and threads of this process but for the proxy's: two and one for each connection."""
    return len(os.listdir("/proc/self/fd")) - 2 * proxy.open, threading.active_count() - proxy.open


def rounds(proxy: FaultProxy, service: Service, url: str, seeds: range) -> Calls:
    """All rounds, and what must be so after them."""
    calls = Calls(service)
    for kind in range(12):
        assert calls.once(f"first-{seeds.start}-{kind}", kind) == 200
    before = rest(service)
    for seed in seeds:
        one_round(proxy, calls, seed)
        assert set(calls.statuses) <= {200, 503}, (seed, set(calls.statuses))
    wait_until(lambda: rest(service) == before, f"places to come back: {before}")
    there = labels(url)
    assert len(there) == len(set(there))
    assert calls.made <= set(there)
    return calls


@contextmanager
def short_bounds() -> Iterator[None]:
    """The product's bounds meanwhile, in seconds where they are minutes."""
    ours = connect._postgresql_arguments
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(silence, "SECONDS", 1.0)
        patched.setattr(postgresql_session, "ORPHAN_SECONDS", 1)
        patched.setattr(connect, "_postgresql_arguments", lambda: {**ours(), "connect_timeout": 2})
        yield
