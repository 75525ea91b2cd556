"""kill -9 of the service in the middle of adds: every acknowledged key is there after the restart, with its event."""

from __future__ import annotations

import base64
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyrack.core.audit import events
from keyrack.core.instance import Instance
from keyrack.core.people import actors
from keyrack.model import Event
from tests import plain_http
from tests.plain_http import PLAIN
from tests.ports import free_port
from tests.services import TEAM, settings_for
from tests.waiting import wait_until

from keyrack import app  # isort: skip

ROUNDS = 4
WRITERS = 4
OLGA = {"Authorization": "Bearer token-of-olga"}


def public_line() -> str:
    """A fresh Ed25519 public key line."""
    raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    blob = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + raw
    return "ssh-ed25519 " + base64.b64encode(blob).decode()


class Killed:
    """A service in a process of its own, that is killed and started again; remembers what it acknowledged."""

    def __init__(self, data: Path, database: str) -> None:
        self.data = data
        self.database = database
        self.url = f"http://127.0.0.1:{free_port()}"
        self.acknowledged: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, *arguments: str) -> list[str]:
        """The command line of a subcommand with this data and database."""
        where = ["--data", str(self.data), *(["--database", self.database] if self.database else [])]
        return [sys.executable, "-m", "keyrack.cli.main", *arguments, *where]

    def start(self) -> None:
        """Start it and wait until it serves."""
        command = self.run("serve", "--listen", self.url.removeprefix("http://"))
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_until(self._ready, "the service")

    def kill(self) -> None:
        """End it as a power cut would."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        self._process = None

    def write_until_it_dies(self, name: str) -> None:
        """Add keys, one after the other, and remember those that were acknowledged."""
        with httpx2.Client(base_url=self.url, timeout=30, headers=OLGA, verify=PLAIN) as client:
            for number in range(100_000):
                label, line = f"{name}-{number}", public_line()
                body = {"label": label, "username": "deploy", "publicKey": line}
                try:
                    answer = client.post("/api/v3/servers/1/ssh/credentials", json=body)
                except httpx2.TransportError:
                    return
                assert answer.status_code == 200, answer.text
                self.acknowledged[label] = line

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the service ended at its start"
        try:
            return plain_http.get(f"{self.url}/readyz").status_code == 200
        except httpx2.TransportError:
            time.sleep(0.05)
            return False


@pytest.fixture(params=["sqlite", "postgresql"])
def killed(request: pytest.FixtureRequest, tmp_path: Path) -> Killed:
    database = ""
    if request.param == "postgresql":
        cluster = request.getfixturevalue("durable_cluster")
        database = cluster.create_database()
    return Killed(tmp_path / "data", database)


def test_every_acknowledged_key_survives(killed: Killed, tmp_path: Path) -> None:
    (tmp_path / "team.toml").write_text(TEAM, "utf-8")
    apply = killed.run("apply", str(tmp_path / "team.toml"))
    subprocess.run(apply, check=True, timeout=120, stdout=subprocess.DEVNULL)
    for number in range(ROUNDS):
        killed.start()
        before = len(killed.acknowledged)
        threads = [
            threading.Thread(target=killed.write_until_it_dies, args=(f"r{number}w{writer}",))
            for writer in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(killed.acknowledged) > before + 20, "the first keys")  # noqa: B023
        time.sleep(random.random() * 0.2)
        killed.kill()
        for thread in threads:
            thread.join(60)
    killed.start()
    try:
        found = _all_keys(killed.url)
    finally:
        killed.kill()
    lost = {label for label, line in killed.acknowledged.items() if found.get(label) != line}
    assert not lost
    instance = app.open_instance(settings_for(killed.data, killed.database))
    try:
        added = _added_labels(instance)
        assert killed.acknowledged.keys() <= added
        # Nor is there a key without its event, or an event without its key.
        assert added == found.keys()
    finally:
        instance.database.close()


def _all_keys(url: str) -> dict[str, str]:
    found: dict[str, str] = {}
    with httpx2.Client(base_url=url, timeout=30, headers=OLGA, verify=PLAIN) as client:
        for page in range(1, 10_000):
            answer = client.get("/api/v3/servers/1/ssh/credentials", params={"page": page, "perPage": 40}).json()
            found |= {key["label"]: key["publicKey"] for key in answer["data"]}
            if page >= answer["meta"]["pagination"]["total_pages"]:
                break
    return found


def _added_labels(instance: Instance) -> set[str]:
    labels: set[str] = set()
    offset = 0
    while True:
        page = events.find(instance, actors.system_actor(1), offset=offset, limit=1000)
        labels |= {str(event.details["label"]) for event in page.items if _is_add(event)}
        offset += 1000
        if offset >= page.total:
            return labels


def _is_add(event: Event) -> bool:
    return event.target_kind == "credential" and event.outcome == "done" and "label" in event.details
