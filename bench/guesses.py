"""Guesses of passwords and tokens, from one address and from a thousand, while the owner signs in all the time.

    .venv/bin/python bench/guesses.py [COUNT]

COUNT guesses (100,000) from one address, then as many from a thousand, half of them passwords of the owner's account,
the others bearer tokens, IAM tokens and secrets of access keys. The clients' addresses are named by a trusted proxy,
which this program is. The owner signs in twice a second from an address that is known, and each tenth time from one
that never was. Prints what guesses were answered, how many a second, and how the owner fared: one that is refused, or
takes more than ten seconds, ends this with an error. 100,000 take some minutes for each of the two.
"""

from __future__ import annotations

import base64
import collections
import http.client
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.services import TEAM, free_port

CONNECTIONS = 16
MANY = 1000
HOME = "198.51.100.9"
PASSWORD = "olga's password"
LONGEST_SECONDS = 10.0

Answer = tuple[int, http.client.HTTPMessage | None]


class Client:
    """One connection through the proxy, made anew whenever it breaks."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: http.client.HTTPConnection | None = None

    def call(self, method: str, path: str, at: str, headers: dict[str, str], body: Any = None) -> Answer:
        """Status and headers of an answer to a client at an address; 0 where there was none."""
        if self._connection is None:
            self._connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        sent = {"Content-Type": "application/json", "X-Forwarded-For": at, **headers}
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), sent)
            answer = self._connection.getresponse()
            answer.read()
            return answer.status, answer.headers
        except (OSError, http.client.HTTPException):
            self._connection.close()
            self._connection = None
            return 0, None

    def sign_in(self, at: str, password: str) -> Answer:
        """A sign-in of the owner's."""
        user = {"user": {"name": "olga", "password": password, "domain": {"name": "acme"}}}
        body = {"auth": {"identity": {"methods": ["password"], "password": user}}}
        return self.call("POST", "/v3/auth/tokens", at, {}, body)


def guess(client: Client, number: int, at: str) -> int:
    """One guess: every second one of a password; its status."""
    word = secrets.token_hex(20)
    if number % 2:
        return client.sign_in(at, word)[0]
    kind = number // 2 % 3
    if kind == 0:
        return client.call("GET", "/api/v3/ping", at, {"Authorization": f"Bearer {word}"})[0]
    if kind == 1:
        return client.call("GET", "/v4/user/keys", at, {"X-Auth-Token": word})[0]
    pair = base64.b64encode(f"AKIA{word[:16]}:{word}".encode()).decode()
    return client.call("GET", "/api/v2/ping", at, {"Authorization": f"Basic {pair}"})[0]


def attack(port: int, count: int, addresses: int) -> collections.Counter[int]:
    """Make so many guesses from so many addresses; answers by status."""
    statuses: collections.Counter[int] = collections.Counter()

    def run(first: int) -> None:
        client = Client(port)
        mine: collections.Counter[int] = collections.Counter()
        for number in range(first, count, CONNECTIONS):
            # Not by the number itself: an address must guess passwords and tokens.
            where = number // 2 % addresses
            mine[guess(client, number, f"10.0.{where // 250}.{where % 250 + 1}")] += 1
        statuses.update(mine)

    threads = [threading.Thread(target=run, args=(first,)) for first in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


class Owner(threading.Thread):
    """Signs in all the time, and out again."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._client = Client(port)
        self._over = threading.Event()
        self.seconds: list[float] = []
        self.failed: list[str] = []

    def run(self) -> None:
        """Until stop()."""
        number = 0
        while not self._over.wait(0.5):
            number += 1
            at = HOME if number % 10 else f"2001:db8:{os.getpid() % 65536:x}:{number:x}::1"
            begun = time.monotonic()
            status, headers = self._client.sign_in(at, PASSWORD)
            self.seconds.append(time.monotonic() - begun)
            if status != 201 or headers is None:
                self.failed.append(f"{status} at {at}")
                continue
            token = headers["X-Subject-Token"]
            both = {"X-Auth-Token": token, "X-Subject-Token": token}
            self._client.call("DELETE", "/v3/auth/tokens", at, both)

    def stop(self) -> None:
        """Sign in no more."""
        self._over.set()
        self.join()


@contextmanager
def service() -> Iterator[int]:
    """A service with the team of the tests that trusts this program's word for addresses; its port."""
    with tempfile.TemporaryDirectory() as scratch:
        data, team, port = Path(scratch) / "data", Path(scratch) / "team.toml", free_port()
        team.write_text(TEAM)
        keyrack = str(Path(sys.executable).with_name("keyrack"))
        subprocess.run([keyrack, "apply", str(team), "--data", str(data)], check=True, stdout=subprocess.DEVNULL)
        with (Path(scratch) / "log").open("wb") as log:
            serving = subprocess.Popen(
                [keyrack, "serve", "--listen", f"127.0.0.1:{port}", "--data", str(data)],
                env={**os.environ, "KEYRACK_TRUSTED_PROXIES": "127.0.0.1"},
                stdout=log,
                stderr=log,
            )
        try:
            deadline = time.monotonic() + 60
            while Client(port).call("GET", "/healthz", HOME, {})[0] != 200 and time.monotonic() < deadline:
                time.sleep(0.1)
            yield port
        finally:
            serving.terminate()
            serving.wait(30)


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    bad = False
    with service() as port:
        if Client(port).sign_in(HOME, PASSWORD)[0] != 201:
            raise SystemExit("The owner cannot sign in even alone.")
        for addresses in (1, MANY):
            owner = Owner(port)
            owner.start()
            begun = time.monotonic()
            try:
                statuses = attack(port, count, addresses)
            finally:
                took = time.monotonic() - begun
                owner.stop()
            times = sorted(owner.seconds) or [0.0]
            print(f"{count} guesses from {addresses} addresses: {count / took:.0f} a second, {dict(statuses)}")
            print(
                f"    the owner signed in {len(times) - len(owner.failed)} of {len(times)} times, p50 "
                f"{statistics.median(times) * 1e3:.0f} ms, p99 {times[int(len(times) * 0.99)] * 1e3:.0f} ms, "
                f"longest {times[-1] * 1e3:.0f} ms"
            )
            for failure in owner.failed[:10]:
                print(f"    refused: {failure}")
            bad = bad or bool(owner.failed) or times[-1] > LONGEST_SECONDS or bool(set(statuses) - {401, 429})
    if bad:
        raise SystemExit("The owner was kept out, or guesses were answered otherwise than 401 and 429.")


if __name__ == "__main__":
    help_asked(__doc__)
    main()
