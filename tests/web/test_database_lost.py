"""A database that is lost while a call is answered: what is said of the change is true."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from keyrack.store.engine import postgresql_session
from tests.postgres import database_name
from tests.services import TEAM, Service, running, settings_for
from tests.waiting import wait_until
from tests.web.test_native import enrol

TOKEN = "token-of-olga"
NOT_DONE = "Nothing was changed"
CUT = """
CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER cut AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (NEW.action = 'people:write') EXECUTE FUNCTION cut();
"""  # noqa: E501


@pytest.fixture
def url(cluster: Any, migrated_template: str) -> Iterator[str]:
    made = cluster.create_database(migrated_template)
    yield made
    cluster.drop_database(made)


@pytest.fixture
def team(url: str, tmp_path: Path) -> Iterator[Service]:
    with running(settings_for(tmp_path / "data", url)) as service:
        service.apply(TEAM)
        yield service


def test_an_interrupted_commit_is_not_reported_as_having_changed_nothing(team: Service, url: str) -> None:
    with closing(psycopg.connect(url, autocommit=True)) as other:
        other.execute(CUT)
        answer = team.call("PUT", "/api/keyrack/v1/groups/ops", token=TOKEN, json={})
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)
    words = answer.json()["error"]["message"]
    assert NOT_DONE not in words
    assert "may have been done" in words


def test_a_change_made_before_the_database_was_lost_is_answered_as_done(team: Service, url: str) -> None:
    enrol(team)
    users = team.call("GET", "/api/v3/servers/1/users?search=deploy", token=TOKEN).json()["data"]
    path = f"/api/v3/servers/1/users/{users[0]['id']}"
    asked = text("SELECT count(*) FROM system_users WHERE deployment_key_asked_at IS NOT NULL")
    name = database_name(url)
    with (
        ThreadPoolExecutor(1) as pool,
        closing(psycopg.connect(url.replace(f"/{name}?", "/postgres?"), autocommit=True)) as other,
    ):
        answered = pool.submit(team.call, "PATCH", f"{path}/deploymentkey", token=TOKEN)
        wait_until(
            lambda: team.instance.database.read(lambda connection: connection.execute(asked).scalar_one()) == 1,
            "the wish to be on the disk",
        )
        other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            done = answered.result(60)
            while_away = team.call("PUT", "/api/keyrack/v1/groups/ops", token=TOKEN, json={})
        finally:
            other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert (done.status_code, done.json()["deploymentKey"]) == (200, None)
    assert while_away.status_code == 503
    assert NOT_DONE in while_away.json()["error"]["message"]


@pytest.mark.parametrize("call", [("GET", "/groups", None), ("PUT", "/groups/ops", {})])
def test_a_lock_of_another_program_is_not_waited_for_without_end(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: tuple[str, str, Any]
) -> None:
    monkeypatch.setattr(postgresql_session, "LOCK_SECONDS", 1)
    method, path, body = call
    with running(settings_for(tmp_path / "data", url)) as service, closing(psycopg.connect(url)) as other:
        service.apply(TEAM)
        other.execute("LOCK TABLE groups IN ACCESS EXCLUSIVE MODE")
        while_locked = service.call(method, f"/api/keyrack/v1{path}", token=TOKEN, json=body)
        assert (while_locked.status_code, "retry-after" in while_locked.headers) == (503, True)
        assert NOT_DONE in while_locked.json()["error"]["message"]
        other.rollback()
        assert service.call(method, f"/api/keyrack/v1{path}", token=TOKEN, json=body).status_code == 200
