"""Tables that somebody took away or renamed below a running service: words, and what hosts have stays."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from sqlalchemy import create_engine

from keyrack.core.hosts import enrolment, servers
from keyrack.core.people import actors
from keyrack.store.engine.connect import parse_url
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

OLGA = "token-of-olga"
BASE = "/api/keyrack/v1"
READ = (
    *(BASE + path for path in ("/servers", "/access?server=web-1", "/people", "/grants", "/events", "/damaged-rows")),
    *("/api/v3/servers/1/ssh/credentials", "/api/v4/user/keys", "/alice.keys"),
)


def alter(service: Service, *statements: str) -> None:
    """As somebody does who has the database alone."""
    url = parse_url(service.instance.settings.database_url)[1]
    engine = create_engine(url)
    with engine.connect() as connection:
        if service.instance.database.dialect == "sqlite":
            connection.exec_driver_sql("PRAGMA legacy_alter_table = ON")
            connection.exec_driver_sql("PRAGMA busy_timeout = 20000")
            connection.commit()
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()
    engine.dispose()


@contextmanager
def renamed(service: Service, what: str) -> Iterator[None]:
    """A table, or a column as TABLE.COLUMN, under another name while the block runs."""
    table, _, column = what.partition(".")
    there, back = (f"COLUMN {column} TO gone", f"COLUMN gone TO {column}") if column else ("TO gone", f"TO {table}")
    alter(service, f"ALTER TABLE {table} RENAME {there}")
    yield
    alter(service, f"ALTER TABLE {table if column else 'gone'} RENAME {back}")


def add(service: Service) -> int:
    body = {"label": uuid4().hex, "username": "deploy", "publicKey": fresh_line()}
    return service.call("POST", "/api/v3/servers/1/ssh/credentials", token=OLGA, json=body).status_code


@pytest.mark.parametrize(
    "what",
    ["credentials", "credentials.public_key", "changes", "users", "access_tree.content", "events", "alembic_version"],
)
def test_a_missing_table_is_named_and_hosts_are_sent_nothing(
    team_on_each: Service, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = team_on_each
    token = servers.invite(service.instance, actors.system_actor(1), 1)
    secret = enrolment.enrol(service.instance, token, {}, address="192.0.2.10").secret
    assert add(service) < 300
    held = service.call("GET", "/agent/v1/document", token=secret)
    assert held.status_code == 200
    caplog.set_level(logging.ERROR)
    with renamed(service, what):
        answers = {path: service.call("GET", path, token=OLGA).status_code for path in READ}
        answers["add"] = add(service)
        answer = service.call("GET", "/agent/v1/document", token=secret)
        ready = service.call("GET", "/readyz")
    assert (ready.status_code, ready.headers["Retry-After"]) == (503, "5")
    kind = "column" if "." in what else "table"
    assert f"{kind} {what} is missing" in ready.json()["detail"]
    assert {status for status in answers.values() if status >= 500} <= {500}, answers
    # What hosts hold stays: they hear that there is no answer, or the same as before.
    assert answer.status_code == 500 or (answer.status_code == 200 and "ssh-ed25519" in answer.text), answer.text
    assert [record.exc_info for record in caplog.records if record.exc_info] == []
    assert service.call("GET", "/readyz").status_code == 200
    assert add(service) < 300
