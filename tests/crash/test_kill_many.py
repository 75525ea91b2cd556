"""kill -9 of the service while one call puts a key on many servers, or takes it away: it is on all or on none."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import Connection

from keyrack import app
from keyrack.core.people import actors
from keyrack.ssh.public_key import fingerprint_of
from keyrack.store import tables
from keyrack.store.hosts import servers
from keyrack.store.keys import revocations
from keyrack.store.sealing import sealed_sets
from tests.crash.test_kill import OLGA, Killed, killed, public_line
from tests.services import TEAM, settings_for

__all__ = ["killed"]
SERVERS = 10_000 if os.environ.get("KEYRACK_LONG") else 300
ROUNDS = 4


class Calls:
    """One key after the other, put on all servers or taken away; remembers what was sent and acknowledged."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/api/keyrack/v1/credentials"
        self.fingerprints: list[str] = []
        self.put: set[str] = set()
        self.taken: set[str] = set()

    def send(self, number: int) -> None:
        """Put a new key there."""
        line = public_line()
        self.fingerprints.append(fingerprint_of(line))
        body = {"label": f"k{number}", "username": "deploy", "publicKey": line, "servers": {"tag": "many"}}
        if self._call(self._url, body):
            self.put.add(self.fingerprints[-1])

    def take(self) -> None:
        """Take the newest key away."""
        newest = self.fingerprints[-1]
        if self._call(f"{self._url}/revoke", {"fingerprint": newest, "servers": {"tag": "many"}}):
            self.taken.add(newest)

    def _call(self, url: str, body: object) -> bool:
        try:
            answer = httpx2.post(url, json=body, headers=OLGA, timeout=120)
        except httpx2.TransportError:
            return False
        assert answer.status_code == 200, answer.text
        return True


def places(killed: Killed, fingerprints: list[str]) -> list[int]:
    """On how many servers each key is."""
    instance = app.open_instance(settings_for(killed.data, killed.database))
    workspace = actors.system_actor(1).workspace_id
    try:
        return [
            len(
                instance.database.read(
                    lambda connection, key=one: revocations.credentials_of_key(connection, workspace, key)  # type: ignore[misc]
                )
            )
            for one in fingerprints
        ]
    finally:
        instance.database.close()


def fill(killed: Killed) -> None:
    """Servers like the first one of many; `apply` makes them one by one, which takes minutes for ten thousand."""
    instance = app.open_instance(settings_for(killed.data, killed.database))

    def write(connection: Connection) -> None:
        first = servers.by_name(connection, 1, "many-0")
        assert first is not None
        (row,) = sealed_sets.locked_servers(connection, (first.id,))
        shared = {name: value for name, value in row.items() if name not in ("id", "seal")}
        shared |= {"applied_revision": 0, "applied_lineage": "", "facts": {}, "rows_sum": bytes(32)}
        rows = [{**shared, "host": f"{n:032x}", "name": f"many-{n}"} for n in range(1, SERVERS)]
        ids = [made.id for made in sealed_sets.insert_many(connection, tables.servers, rows)]
        account = {"username": "deploy", "deletable": True, "managed": False, "created_at": instance.now()}
        sealed_sets.insert_many(connection, tables.system_users, [{**account, "server_id": one} for one in ids])
        sealed_sets.insert_many(connection, tables.server_tags, [{"server_id": one, "tag": "many"} for one in ids])

    try:
        instance.database.write(write)
    finally:
        instance.database.close()


@pytest.mark.timeout(900 if SERVERS > 300 else 300)
def test_a_key_is_on_all_servers_or_on_none(killed: Killed, tmp_path: Path) -> None:
    one = '[[servers]]\nname = "many-0"\naddress = "192.0.2.20"\nsystem_users = ["deploy"]\ntags = ["many"]\n'
    (tmp_path / "team.toml").write_text(TEAM + one, "utf-8")
    apply = killed.run("apply", str(tmp_path / "team.toml"))
    subprocess.run(apply, check=True, timeout=120, stdout=subprocess.DEVNULL)
    fill(killed)
    calls = Calls(killed.url)
    for number in range(ROUNDS):
        killed.start()
        _killed_amid(killed, lambda number=number: calls.send(number), number)  # type: ignore[misc]
    for fingerprint, held in zip(calls.fingerprints, places(killed, calls.fingerprints), strict=True):
        assert held in ((SERVERS,) if fingerprint in calls.put else (0, SERVERS))
    for number in range(ROUNDS):
        killed.start()
        calls.send(ROUNDS + number)
        assert calls.fingerprints[-1] in calls.put
        _killed_amid(killed, calls.take, number)
    late = calls.fingerprints[ROUNDS:]
    for fingerprint, held in zip(late, places(killed, late), strict=True):
        assert held in ((0,) if fingerprint in calls.taken else (0, SERVERS))


def _killed_amid(killed: Killed, call: Callable[[], None], number: int) -> None:
    """Kill the service while it answers a call, at another moment each time."""
    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.03 * 2**number * (SERVERS / 300) ** 0.5)
    killed.kill()
    thread.join(60)
