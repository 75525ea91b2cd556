"""`keyrack serve` as an operator starts and stops it: what is wrong is said once, in words, and it ends."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2
import psycopg
import pytest

from keyrack import app
from keyrack.core.hosts import enrolment, servers
from keyrack.core.people import actors
from keyrack.core.workspace import apply as workspace_apply
from tests import plain_http
from tests.ports import free_port
from tests.postgres import Cluster
from tests.processes import is_alive
from tests.services import TEAM, settings_for
from tests.waiting import wait_until

EVERYWHERE = (
    "/agent/v1/document",
    "/api/v2/servers",
    "/api/v3/servers",
    "/api/keyrack/v1/servers",
    "/v4/user/keys",
    "/v3/projects",
    "/readyz",
)


def serve(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "keyrack.cli.main", "serve", *arguments]


@contextmanager
def serving(
    folder: Path, database: str, *more: str, first: Callable[[], object] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A service in a process of its own, ready; its standard error goes to FOLDER/log. first: what that process does
    before it begins.
    """
    url = f"http://127.0.0.1:{free_port()}"
    arguments = ("--data", str(folder), "--database", database, "--listen", url.removeprefix("http://"), *more)
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(serve(*arguments), stderr=log, text=True, preexec_fn=first)
    try:
        wait_until(lambda: process.poll() is not None or status(url) == 200, "the service")
        assert process.poll() is None, (folder / "log").read_text()
        yield process, url
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


def status(url: str, path: str = "/readyz") -> int:
    """The status of an answer; 0 where there is none."""
    try:
        return plain_http.get(url + path, timeout=20).status_code
    except httpx2.TransportError:
        return 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_unreachable_database_and_one_that_refuses_have_different_errors(
    workers: str, cluster: Cluster, tmp_path: Path
) -> None:
    for address, words in (
        ("postgresql://keyrack@127.0.0.1:1/keyrack", "cannot be reached"),
        (cluster.url("nowhere"), 'refuses: database "nowhere" does not exist'),
    ):
        arguments = ("--data", str(tmp_path), "--listen", f"127.0.0.1:{free_port()}")
        run = serve(*arguments, "--workers", workers, "--database", address)
        ended = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == (4 if "reached" in words else 1)
        assert words in ended.stderr
        assert len(ended.stderr.splitlines()) == 1, ended.stderr


def test_workers_that_cannot_start_any_more_end_the_service(cluster: Cluster, tmp_path: Path) -> None:
    database = cluster.create_database()
    with serving(tmp_path / "data", database, "--workers", "2") as (process, _):
        # What a worker finds wrong when it is started anew, and would find wrong for ever.
        (tmp_path / "data" / "instance.key").rename(tmp_path / "elsewhere")
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
        assert process.wait(200) == 1
    log = (tmp_path / "data" / "log").read_text()
    assert "instance.key is missing" in log
    assert "Traceback" not in log


def test_workers_end_with_whoever_started_them(cluster: Cluster, tmp_path: Path) -> None:
    database = cluster.create_database()
    with serving(tmp_path / "data", database, "--workers", "2") as (process, url):
        workers = children(process.pid)
        process.kill()
        process.wait(30)
        wait_until(lambda: not any(is_alive(worker) for worker in workers), "the end of the workers")
        assert status(url) == 0
    assert "Traceback" not in (tmp_path / "data" / "log").read_text()
    cluster.drop_database(database)


def children(pid: int) -> list[int]:
    """The workers of a service; not multiprocessing's own tracker."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_a_worker_that_takes_long_to_load_is_not_taken_for_hung(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = "import sys, time\nif '--multiprocessing-fork' in sys.argv: time.sleep(6)\n"
    (tmp_path / "sitecustomize.py").write_text(slow, "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with serving(tmp_path / "data", cluster.create_database(), "--workers", "2") as (process, _):
        log = tmp_path / "data" / "log"
        wait_until(lambda: log.read_text().count("fsync = off") == 2, "what each of both says as it begins")
        assert "is replaced" not in log.read_text()
        stopped = children(process.pid)[0]
        os.kill(stopped, signal.SIGSTOP)
        wait_until(lambda: stopped not in children(process.pid), "another one in place of one that stands still")
    said = [line for line in log.read_text().splitlines() if "is replaced" in line]
    assert len(said) == 1
    assert f"pid={stopped} why='it did not answer'" in said[0]


def test_a_worker_that_starts_anew_waits_for_a_database_that_is_away(durable_cluster: Cluster, tmp_path: Path) -> None:
    database = durable_cluster.create_database()
    with serving(tmp_path / "data", database, "--workers", "2") as (process, url):
        durable_cluster.stop()
        try:
            for child in children(process.pid):
                os.kill(child, signal.SIGKILL)
            log = tmp_path / "data" / "log"
            wait_until(lambda: "does not answer" in log.read_text(), "a worker that waits")
        finally:
            durable_cluster.start()
        wait_until(lambda: status(url) == 200, "the workers with their database")
        assert process.poll() is None
    assert "Traceback" not in log.read_text()


def test_an_outage_is_two_lines_in_the_log_and_not_ready(durable_cluster: Cluster, tmp_path: Path) -> None:
    database = durable_cluster.create_database()
    with serving(tmp_path / "data", database) as (_, url):
        durable_cluster.crash()
        try:
            for _ in range(100):
                assert status(url) == 503
            body = plain_http.get(f"{url}/readyz", timeout=20).json()
            assert body == {
                "status": "unavailable",
                "reason": "database",
                "detail": "The database does not answer.",
            }
            assert status(url, "/healthz") == 200
            assert status(url, "/api/v3/ping") in (200, 401, 500, 503)
        finally:
            durable_cluster.start()
        wait_until(lambda: status(url) == 200, "readiness after the database is back")
    lines = (tmp_path / "data" / "log").read_text().splitlines()
    assert len([line for line in lines if "keyrack.store.engine.outage" in line]) <= 4, lines
    assert not [line for line in lines if "Traceback" in line]


def test_a_disk_that_takes_nothing_more_is_not_ready_though_reads_go_on(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/keyrack.db"
    instance = app.open_instance(settings_for(tmp_path / "data", database))
    workspace_apply.apply(instance, TEAM, {})
    instance.database.close()
    olga = {"Authorization": "Bearer token-of-olga"}

    def make(url: str, name: str) -> int:
        body = {"name": name, "ipAddress": "192.0.2.77", "provider": "none"}
        return plain_http.post(f"{url}/api/v3/servers", json=body, headers=olga, timeout=20).status_code

    with serving(tmp_path / "data", database) as (process, url):
        assert make(url, "first") == 200
        before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        assert [make(url, "second") for _ in range(5)] == [503] * 5
        assert status(url) == 503
        assert plain_http.get(f"{url}/api/v3/servers", headers=olga).status_code == 200
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
        wait_until(lambda: status(url) == 200, "readiness once there is room")
        assert make(url, "second") == 200
    lines = (tmp_path / "data" / "log").read_text().splitlines()
    assert len([line for line in lines if "again, after" in line]) <= 1, lines
    assert not [line for line in lines if "Traceback" in line], lines


def test_a_database_that_answers_with_an_error_is_not_ready(cluster: Cluster, tmp_path: Path) -> None:
    database = cluster.create_database()
    with serving(tmp_path / "data", database) as (_, url):
        assert status(url) == 200
        with psycopg.connect(database, autocommit=True) as raw:
            raw.execute("ALTER TABLE alembic_version RENAME TO elsewhere")
        answer = plain_http.get(f"{url}/readyz", timeout=20)
        assert (answer.status_code, answer.json()["reason"]) == (503, "database")
    cluster.drop_database(database)


def test_a_replaced_file_makes_every_api_say_so_and_the_log_once(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/keyrack.db"
    instance = app.open_instance(settings_for(tmp_path / "data", database))
    workspace_apply.apply(instance, TEAM, {})
    instance.database.close()
    with serving(tmp_path / "data", database) as (_, url):
        (tmp_path / "copy.db").write_bytes((tmp_path / "keyrack.db").read_bytes())
        (tmp_path / "copy.db").rename(tmp_path / "keyrack.db")  # in one step, so that nobody reads half of it
        wait_until(lambda: status(url) == 503, "that the service is not ready")
        assert "was replaced" in plain_http.get(f"{url}/readyz").json()["detail"]
        olga = {"Authorization": "Bearer token-of-olga"}
        for path in EVERYWHERE * 5:
            refused = plain_http.get(url + path, headers={**olga, "X-Auth-Token": "token-of-olga"})
            assert (path, refused.status_code) == (path, 503)
            assert int(refused.headers["retry-after"]) > 0
    lines = (tmp_path / "data" / "log").read_text().splitlines()
    assert len([line for line in lines if "was replaced" in line]) == 1, lines
    assert not [line for line in lines if "Traceback" in line]


def test_stopping_with_many_hosts_waiting_prints_no_traceback(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path}/keyrack.db"
    instance = app.open_instance(settings_for(tmp_path / "data", database))
    workspace_apply.apply(instance, TEAM, {})
    token = servers.invite(instance, actors.system_actor(1), 1)
    secret = enrolment.enrol(instance, token, {"agent_version": "1"}, address="127.0.0.1").secret
    revision = servers.get(instance, actors.system_actor(1), 1).revision
    instance.database.close()
    answers: list[int] = []
    with serving(tmp_path / "data", database) as (process, url):

        def wait() -> None:
            asked = {"revision": str(revision), "wait": "50"}
            try:
                headers = {"Authorization": f"Bearer {secret}"}
                answers.append(
                    plain_http.get(f"{url}/agent/v1/document", params=asked, headers=headers, timeout=60).status_code
                )
            except httpx2.TransportError:
                answers.append(0)

        threads = [threading.Thread(target=wait) for _ in range(200)]
        for thread in threads:
            thread.start()
        wait_until(lambda: connections(process.pid) > 150, "the hosts' connections")
        process.terminate()
        for thread in threads:
            thread.join(60)
        process.wait(60)
    assert set(answers) <= {0, 204, 503}
    assert len((tmp_path / "data" / "log").read_text().splitlines()) <= 2


def connections(pid: int) -> int:
    """How many sockets a process has open."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += os.readlink(entry).startswith("socket:")
        except OSError:
            continue
    return found


OPENED = """
import os, sys
path = os.path.realpath(sys.argv.pop(1))

def note(event, arguments):
    if event != "open" or not isinstance(arguments[0], (str, bytes)):
        return
    opened = os.path.realpath(os.fsdecode(arguments[0]))
    # In its log alone SQLite locks nothing.
    if opened.startswith(path) and opened != f"{path}-wal" and not arguments[2] & os.O_EXCL:
        os.write(2, f"OPENED {opened}\\n".encode())

sys.addaudithook(note)
from keyrack.cli.main import main
main()
"""


def test_nothing_in_a_serving_process_opens_the_database_file_beside_sqlite(tmp_path: Path) -> None:
    """Closing such a descriptor would drop every lock that the process has on the file."""
    path = tmp_path / "data" / "keyrack.db"
    (tmp_path / "team.toml").write_text(TEAM, "utf-8")
    url = f"http://127.0.0.1:{free_port()}"
    apply = [sys.executable, "-c", OPENED, str(path), "apply", str(tmp_path / "team.toml")]
    applied = subprocess.run(
        [*apply, "--data", str(tmp_path / "data")], capture_output=True, text=True, check=True, timeout=60
    )
    assert "OPENED" not in applied.stderr
    listen = ["--data", str(tmp_path / "data"), "--listen", url.removeprefix("http://")]
    process = subprocess.Popen([sys.executable, "-c", OPENED, str(path), "serve", *listen], stderr=subprocess.PIPE)
    try:
        wait_until(lambda: status(url) == 200, "the service")
        olga = {"Authorization": "Bearer token-of-olga"}
        for address in ("/metrics", "/docs", "/openapi.json", "/api/v3/servers", "/api/keyrack/v1/events", "/readyz"):
            plain_http.get(url + address, headers=olga)
        name = {"name": "web-2", "ipAddress": "192.0.2.11"}
        assert plain_http.post(f"{url}/api/v3/servers", json=name, headers=olga).status_code == 200
    finally:
        process.terminate()
        said = process.communicate(timeout=60)[1].decode()
    assert "OPENED" not in said


NOT_BEFORE_IT_IS_ASKED_FOR = {"alembic", "jinja2", "jwt", "leather", "rich", "segno", "webauthn"}
"""Each takes megabytes, for pages that nobody may ever ask for; rich, where somebody installed it, for nothing."""


def test_the_service_starts_without_rarely_used_modules() -> None:
    script = """
import sys
from keyrack.cli.machine.serve import set_up_logging
from keyrack.web import server
set_up_logging()
print(*sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert not NOT_BEFORE_IT_IS_ASKED_FOR & set(ended.stdout.split())


def test_a_service_that_loses_its_terminal_ends_in_order(cluster: Cluster, tmp_path: Path) -> None:
    """It ended in the middle of what it did."""
    folder = tmp_path / "alone"
    hears = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    with serving(folder, f"sqlite:///{folder}/keyrack.db", first=hears) as (process, _):
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == -signal.SIGTERM  # as uvicorn ends once all is done
    database = cluster.create_database()
    with serving(tmp_path / "workers", database, "--workers", "2", first=hears) as (process, _):
        workers = children(process.pid)
        for one in (process.pid, *workers):  # as the kernel does
            os.kill(one, signal.SIGHUP)
        assert process.wait(30) == 0
        assert not [one for one in workers if Path(f"/proc/{one}").exists()]


def test_a_folder_with_sqlite_is_served_by_one_service(tmp_path: Path) -> None:
    """A second one was started without a word; a service with other settings, or another version, beside the first."""
    folder = tmp_path / "data"
    with serving(folder, f"sqlite:///{folder}/keyrack.db"):
        arguments = ("--data", str(folder), "--listen", f"127.0.0.1:{free_port()}")
        second = subprocess.run(serve(*arguments), capture_output=True, text=True, timeout=60, check=False)
        assert (second.returncode, second.stderr.count("\n")) == (1, 1)
        assert f"Another service serves {folder}, and SQLite serves with one process" in second.stderr
        tried = [sys.executable, "-m", "keyrack.cli.main", "up", "--data", str(folder), "--listen", arguments[3]]
        ports = ("--sshd-port", str(free_port()), "--git-port", str(free_port()))
        beside = subprocess.run([*tried, *ports], capture_output=True, text=True, timeout=60, check=False)
        assert (beside.returncode, "Another service serves" in beside.stderr) == (1, True)
    with serving(folder, f"sqlite:///{folder}/keyrack.db"):
        pass  # what held it is gone with its process
