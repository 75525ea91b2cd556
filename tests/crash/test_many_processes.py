"""Services, a Git host and commands on one database, killed again and again: nothing acknowledged is lost.

The long form tells how far it is, and ends with one line:
  KEYRACK_LONG=1 pytest -s tests/crash/test_many_processes.py -k sqlite        1,000 kills
  KEYRACK_LONG=1 pytest -s tests/crash/test_many_processes.py -k postgresql    200, and 20 of the database
KEYRACK_ROUNDS is another number of kills.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack import app
from keyrack.core.audit import events
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, revocation
from keyrack.core.people import actors
from keyrack.core.people import users as people
from keyrack.model import Event
from keyrack.ssh.public_key import parse
from keyrack.store.keys.revoked_keys import RevokedKey
from tests.crash.acknowledged_writes import AcknowledgedWrites
from tests.crash.many_processes import ManyProcesses, children_of
from tests.postgres import Cluster
from tests.services import TEAM, settings_for
from tests.waiting import wait_until

LONG = os.environ.get("KEYRACK_LONG") == "1"
ROUNDS = int(os.environ.get("KEYRACK_ROUNDS", "0"))
DATABASE_KILLED_EVERY = 10
WHOLE_FILE_EVERY = 10

pytestmark = pytest.mark.timeout(36_000 if LONG else 900)


def begin(folder: Path, database: str, services: int) -> ManyProcesses:
    (folder / "team.toml").write_text(TEAM, "utf-8")
    apply = [sys.executable, "-m", "keyrack.cli.main", "apply", str(folder / "team.toml")]
    where = ["--data", str(folder / "data"), "--database", database]
    subprocess.run([*apply, *where], check=True, timeout=120, stdout=subprocess.DEVNULL)
    return ManyProcesses(folder, database, services)


def kill_at_random(many: ManyProcesses, newest: AcknowledgedWrites, rounds: int) -> None:
    """SIGKILL one after the other; what was acknowledged since the last kill is looked up after each."""
    for _ in range(rounds):
        before = len(many.acknowledged)
        wait_until(lambda: len(many.acknowledged) > before or many.problems, "something acknowledged")  # noqa: B023
        assert not many.problems, many.problems[0]
        time.sleep(random.random() * 0.2)
        many.kill_one()
        newest.check(many.acknowledged)
        if many.killed.total() % WHOLE_FILE_EVERY == 0:
            newest.check_whole_file()
            print(newest.progress(many), flush=True)


def test_processes_on_one_sqlite_file_lose_no_acknowledged_change(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'keyrack.db'}"
    with under_way(tmp_path, database, services=1) as (many, newest):
        kill_at_random(many, newest, ROUNDS or (1000 if LONG else 30))


def test_processes_on_postgresql_that_is_killed_too_lose_no_acknowledged_change(
    durable_cluster: Cluster, tmp_path: Path
) -> None:
    with under_way(tmp_path, durable_cluster.create_database(), services=2) as (many, newest):
        for _ in range((ROUNDS or (200 if LONG else 30)) // DATABASE_KILLED_EVERY):
            kill_at_random(many, newest, DATABASE_KILLED_EVERY)
            durable_cluster.kill()
            many.killed["database"] += 1
            time.sleep(random.random())
            durable_cluster.start_again()
            many.check_ready()


@contextlib.contextmanager
def under_way(folder: Path, database: str, services: int) -> Iterator[tuple[ManyProcesses, AcknowledgedWrites]]:
    """All of them at work; when they have been stopped, everything that was acknowledged is looked up once more."""
    many = begin(folder, database, services)
    newest = AcknowledgedWrites(app.open_instance(settings_for(folder / "data", database)))
    with contextlib.closing(newest):
        try:
            many.start()
            yield many, newest
        finally:
            many.stop()
        assert not many.problems, many.problems[0]
        newest.check(many.acknowledged)
        newest.check_whole_file()
        check(many, database, folder)
        print(f"Nothing was lost: {newest.progress(many)}")


def test_a_stopped_service_leaves_nothing_of_its_git_host_running(tmp_path: Path) -> None:
    many = begin(tmp_path, f"sqlite:///{tmp_path / 'keyrack.db'}", services=0)

    try:
        many.start()
        wait_until(lambda: sshds(children_of(many.git_host)), "the sshd of the Git host")
        running = children_of(many.git_host)
    finally:
        many.stop()
    wait_until(lambda: not sshds(running), "the end of its sshd")


def sshds(pids: list[int]) -> list[int]:
    """Those of these processes that are a listening sshd."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"sshd" in words and b"-D" in words:
                found.append(pid)
    return found


def check(many: ManyProcesses, database: str, folder: Path) -> None:
    """Every acknowledged change is there with its event, and no key without one."""
    known = many.acknowledged
    assert len(known.added) > 10
    assert known.revoked
    assert known.users
    assert "Traceback" not in many.logs(), many.logs()
    instance = app.open_instance(settings_for(folder / "data", database))
    try:
        there = all_keys(instance)
        log = all_events(instance)
        expected = {
            label: line for label, line in known.added.items() if parse(line).fingerprint not in known.tried_to_revoke
        }
        assert {label: there.get(label) for label in expected} == expected
        gone = {label for label, line in known.added.items() if parse(line).fingerprint in known.revoked}
        assert not gone & there.keys()
        labels = {str(event.details["label"]) for event in log if "label" in event.details}
        assert known.added.keys() <= labels
        assert there.keys() <= labels
        revoked = {one.fingerprint for one in all_revoked(instance)}
        assert known.revoked <= revoked <= known.tried_to_revoke
        assert revoked == {
            str(event.details["fingerprint"])
            for event in log
            if event.action == "keys:revoke" and "reason" in event.details
        }
        users = {user.name for user in people.find(instance, actors.system_actor(1))}
        assert known.users <= users
        assert known.users <= {word for event in log if event.target_kind == "user" for word in event.summary.split()}
    finally:
        instance.database.close()


def all_keys(instance: Instance) -> dict[str, str]:
    found: dict[str, str] = {}
    while True:
        page = credentials.find(instance, actors.system_actor(1), 1, offset=len(found), limit=1000)
        found |= {credential.label: credential.public_key for credential in page.items}
        if len(found) >= page.total:
            return found


def all_events(instance: Instance) -> list[Event]:
    found: list[Event] = []
    while True:
        page = events.find(instance, actors.system_actor(1), offset=len(found), limit=1000)
        found += page.items
        if len(found) >= page.total:
            return found


def all_revoked(instance: Instance) -> list[RevokedKey]:
    found: list[RevokedKey] = []
    while True:
        page = revocation.find(instance, actors.system_actor(1), offset=len(found), limit=1000)
        found += page.items
        if len(found) >= page.total:
            return found
