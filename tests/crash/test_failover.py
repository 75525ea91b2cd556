"""PostgreSQL dies and its standby takes over: the service goes on there by itself, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx2
import psycopg
import pytest

from keyrack import app
from keyrack.core.audit import chain, verify_log
from keyrack.core.people.actors import system_actor
from tests.crash.test_kill import OLGA, Killed, _added_labels, _all_keys, public_line
from tests.plain_http import PLAIN
from tests.postgres import Cluster, database_name, find_programs
from tests.services import TEAM, settings_for
from tests.waiting import wait_until


@pytest.fixture
def standby(durable_cluster: Cluster) -> Iterator[Cluster]:
    """A standby that has each commit before it is acknowledged."""
    folder = Path(tempfile.mkdtemp(prefix="keyrack-pg-", dir="/tmp"))
    account = "postgres" if os.geteuid() == 0 else None
    if account:
        os.chown(folder, pwd.getpwnam(account).pw_uid, pwd.getpwnam(account).pw_gid)
    copy = ("-h", durable_cluster.folder, "-U", "keyrack", "-D", folder / "data", "-R", "-X", "stream", "-c", "fast")
    subprocess.run([find_programs() / "pg_basebackup", *copy], check=True, user=account, cwd=folder, timeout=120)
    cluster = Cluster(folder, durable=True)
    try:
        cluster.start()
        set_standbys(durable_cluster, "*")
        yield cluster
    finally:
        cluster.kill()
        if durable_cluster.running:
            set_standbys(durable_cluster, "")
        shutil.rmtree(folder, ignore_errors=True)


def set_standbys(cluster: Cluster, names: str) -> None:
    """Which standbys a commit waits for."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as raw:
        raw.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        raw.execute("SELECT pg_reload_conf()")


def promote(cluster: Cluster) -> None:
    """Make a standby the one that is written to."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as raw:
        raw.execute("SELECT pg_promote(wait := true)")
    set_standbys(cluster, "")


def add_until(killed: Killed, name: str, stopping: threading.Event, problems: list[str]) -> None:
    """Add keys also while the database is away; what was acknowledged is remembered."""
    with httpx2.Client(base_url=killed.url, timeout=60, headers=OLGA, verify=PLAIN) as client:
        number = 0
        while not stopping.is_set():
            number += 1
            label, line = f"{name}-{number}", public_line()
            answer = client.post(
                "/api/v3/servers/1/ssh/credentials", json={"label": label, "username": "deploy", "publicKey": line}
            )
            if answer.status_code == 200:
                killed.acknowledged[label] = line
            elif answer.status_code != 503:
                problems.append(f"{answer.status_code} {answer.text}")
            stopping.wait(0.02)


def test_the_standby_takes_over_with_all_that_was_acknowledged(
    durable_cluster: Cluster, standby: Cluster, tmp_path: Path
) -> None:
    name = database_name(durable_cluster.create_database())
    hosts = quote(f"{durable_cluster.folder},{standby.folder}", safe=",")
    killed = Killed(tmp_path / "data", f"postgresql://keyrack@/{name}?host={hosts}&target_session_attrs=read-write")
    (tmp_path / "team.toml").write_text(TEAM, "utf-8")
    apply = killed.run("apply", str(tmp_path / "team.toml"))
    subprocess.run(apply, check=True, timeout=120, stdout=subprocess.DEVNULL)
    killed.start()
    stopping, problems = threading.Event(), list[str]()
    threads = [threading.Thread(target=add_until, args=(killed, f"w{n}", stopping, problems)) for n in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(killed.acknowledged) > 20 or problems, "the first keys")
        durable_cluster.kill()
        promote(standby)
        before = len(killed.acknowledged)
        wait_until(lambda: len(killed.acknowledged) > before + 20 or problems, "keys after the failover")
    finally:
        stopping.set()
        for thread in threads:
            thread.join(120)
    assert not problems, problems[0]
    try:
        found = _all_keys(killed.url)
    finally:
        killed.kill()
    assert killed.acknowledged.items() <= found.items()
    instance = app.open_instance(settings_for(killed.data, killed.database))
    try:
        assert killed.acknowledged.keys() <= _added_labels(instance)
        while chain.extend(instance):
            pass
        assert verify_log.verify(instance, system_actor(channel="cli")).problem == ""
    finally:
        instance.database.close()
