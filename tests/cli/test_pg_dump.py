"""What docs/recovery.md says of PostgreSQL, run as it stands there: a dump beside writes, put back, is whole."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import threading
from pathlib import Path

from keyrack import app
from keyrack.core import ownership
from keyrack.core.audit import chain, events, verify_log
from keyrack.core.hosts import server_list, servers
from keyrack.core.instance import Instance
from keyrack.core.people.actors import system_actor
from tests.core.all_damaged_rows import damaged
from tests.core.conftest import make_team
from tests.postgres import Cluster, database_name, find_programs
from tests.services import settings_for

PAGE = Path(__file__).parent.parent.parent / "docs" / "recovery.md"
BETWEEN = 20


def written(instance: Instance) -> None:
    """Every event has its place, and what is signed last is kept in the data folder."""
    file = instance.settings.data / ownership.CHECKPOINT
    while chain.extend(instance, (chain.file_keeper(file),)):
        pass


def lines_of_the_page(command: str) -> list[str]:
    """The commands of the page that begin so, each as a whole where it goes on over some lines."""
    found: list[str] = []
    lines = iter(PAGE.read_text("utf-8").splitlines())
    for line in lines:
        if line.startswith(f"{command} "):
            while line.count('"') % 2:
                line += f"\n{next(lines)}"
            found.append(line)
    return found


def test_a_dump_beside_writes_that_is_put_back_verifies_and_is_an_alarm(cluster: Cluster, tmp_path: Path) -> None:
    url = cluster.create_database()
    name, settings = database_name(url), settings_for(tmp_path / "data", url)
    instance = app.open_instance(settings)
    team = make_team(instance)
    written(instance)

    def run(line: str) -> str:
        """As it stands there, but for where the server is, the database's name and the folder; what it prints."""
        line = re.sub(r"postgresql://\w+@db/postgres", cluster.url("postgres"), line)
        line = line.replace("postgresql://keyrack@db/keyrack_before", cluster.url(f"{name}_b"))
        line = line.replace("postgresql://keyrack@db/keyrack", url).replace("/backup/", f"{tmp_path}/")
        line = re.sub(r"DATABASE keyrack RENAME TO keyrack_before", f'DATABASE "{name}" RENAME TO "{name}_b"', line)
        line = re.sub(r" keyrack$", f" {name}", line).replace("--host=db", f"--host={cluster.folder}")
        path = f"{find_programs()}:{os.environ['PATH']}"
        words, where = shlex.split(line, comments=True), {**os.environ, "PATH": path, "PGUSER": "keyrack"}
        done = subprocess.run(words, check=True, timeout=120, env=where, stdout=subprocess.PIPE, encoding="utf-8")
        return done.stdout

    stop, made = threading.Event(), 0

    def write() -> None:
        nonlocal made
        while not stop.is_set():
            made += 1
            servers.create(instance, team.owner, name=f"meanwhile-{made}", address="192.0.2.9")

    writer = threading.Thread(target=write)
    writer.start()
    (dump,) = lines_of_the_page("pg_dump")
    run(dump)
    stop.set()
    writer.join()
    for number in range(BETWEEN):
        servers.create(instance, team.owner, name=f"after-{number}", address="192.0.2.9")
    written(instance)
    instance.database.close()
    rename, since = lines_of_the_page("psql")
    for line in (rename, *lines_of_the_page("createdb"), *lines_of_the_page("pg_restore")):
        run(line)
    # What was lost, by the log of the replaced database; LAST as the page says.
    last = run(f'psql --dbname={url} --tuples-only --command="SELECT max(id) FROM events"').strip()
    lost = run(since.replace("LAST", last, 1))
    assert [number for number in range(BETWEEN) if f"after-{number} " not in lost] == []
    assert "web-1" not in lost

    again = app.open_instance(settings)
    try:
        chain.recall(again, settings.data / ownership.CHECKPOINT)  # as a service does that was just started
        written(again)
        assert damaged(again, team.owner) == []
        log = events.find(again, team.owner, limit=100).items
        assert any(one.level == "alarm" and "went back" in one.summary for one in log), [one.summary for one in log]
        assert verify_log.verify(again, system_actor(channel="cli")).problem == ""
        servers.create(again, team.owner, name="goes-on", address="192.0.2.9")
        assert [one.name for one in server_list.find(again, team.owner, search="goes-on").items] == ["goes-on"]
        assert not server_list.find(again, team.owner, search="after-0").items
    finally:
        again.database.close()
        cluster.drop_database(url)
