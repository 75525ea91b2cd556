"""SQLite's file locked for ever by another program: changes are refused in words, all else goes on, and so do they."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from keyrack.store.database import Database, DatabaseUnavailable
from keyrack.store.engine import connect, sqlite_file
from tests.core.keys_for_tests import fresh_line
from tests.services import TEAM, Service, running, settings_for
from tests.web.runcloud_team import Agent
from tests.web.test_iam import sign_in
from tests.web.test_nonblocking import KEYS
from tests.web.test_runcloud import add

PATIENCE = 1.0  # in place of half a minute
CALLERS = 12
BOUND = 20.0


@contextmanager
def held(file: Path, words: str) -> Iterator[None]:
    """Another process, SQLite's own shell, holds a lock on the file meanwhile."""
    with subprocess.Popen(
        ["sqlite3", str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        try:
            shell.stdin.write(f"{words}\nSELECT 'held';\n")
            shell.stdin.flush()
            assert shell.stdout.readline() == "held\n"
            yield
        finally:
            shell.kill()


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for module in (connect, sqlite_file):
        monkeypatch.setattr(module, "BUSY_SECONDS", PATIENCE)
    with running(settings_for(tmp_path / "data", "")) as made:
        made.apply(TEAM)
        yield made


def test_a_change_that_comes_while_others_wait_waits_no_longer_than_they(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (connect, sqlite_file):
        monkeypatch.setattr(module, "BUSY_SECONDS", 2 * PATIENCE)
    file = tmp_path / "keyrack.db"

    def change() -> None:
        with pytest.raises(DatabaseUnavailable, match="Another program holds a lock"):
            database.write(lambda connection: None)

    with closing(Database.open(f"sqlite:///{file}")) as database, ThreadPoolExecutor(2) as pool:
        database.write(lambda connection: None)
        with held(file, "BEGIN IMMEDIATE;"):
            began = time.monotonic()
            first = pool.submit(change)
            time.sleep(PATIENCE / 2)
            second = pool.submit(change)
            for one in (first, second):
                one.result(BOUND)
            assert time.monotonic() - began < 3.5 * PATIENCE, "the second one waited for as long again"


@pytest.mark.parametrize("kind", ["IMMEDIATE", "EXCLUSIVE"])
def test_a_lock_that_is_held_for_ever(service: Service, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    agent = Agent(service, 1)
    file = service.instance.settings.data / "keyrack.db"
    assert add(service, label="before", publicKey=fresh_line()).status_code == 200
    with held(file, f"BEGIN {kind};"), ThreadPoolExecutor(CALLERS + 1) as pool:
        lines = [fresh_line() for _ in range(CALLERS)]
        began = time.monotonic()
        asked = [pool.submit(add, service, label=f"meanwhile-{n}", publicKey=line) for n, line in enumerate(lines)]
        asked.append(pool.submit(sign_in, service))
        for path, token in ((KEYS, "token-of-olga"), ("/agent/v1/document?revision=0", agent.secret)):
            assert service.call("GET", path, token=token).status_code == 200, "what only reads goes on"
        for answer in [one.result(BOUND) for one in asked]:
            assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
        assert time.monotonic() - began < CALLERS * PATIENCE, "they do not wait one after another"
        assert service.call("GET", "/readyz").status_code == 503
        report = {"revision": 1, "state": "applied"}
        assert service.call("POST", "/agent/v1/report", token=agent.secret, json=report).status_code == 503
    assert add(service, label="after", publicKey=fresh_line()).status_code == 200
    assert service.call("GET", "/readyz").status_code == 200
    assert sign_in(service).status_code == 201
    listed = service.call("GET", KEYS, token="token-of-olga").json()["data"]
    assert sorted(row["label"] for row in listed) == ["after", "before"], "what was refused was not done"
    assert any("Another program holds a lock" in one.getMessage() for one in caplog.records), "the log says what to do"
    assert "failed unexpectedly" not in caplog.text
