"""Questions asked in the one writer, every few seconds, or for each page read no whole table; on both databases."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from keyrack.model import Actor, EventFilter, Role, Window
from keyrack.store import tables
from keyrack.store.audit import events, webhooks
from keyrack.store.database import Database
from keyrack.store.git import deploy_keys, repositories
from keyrack.store.hosts import applied, host_reports, unmanaged_keys
from keyrack.store.keys import (
    break_glass,
    credential_lists,
    credentials,
    endings,
    expired_keys,
    key_owners,
    key_places,
    keys_of_many,
    new_user_keys,
    openings,
    requests,
    revocations,
    revoked_keys,
    user_keys,
)
from keyrack.store.people import offboardings, standing
from tests.databases import DIALECTS
from tests.postgres import Cluster
from tests.statements import each_statement

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FINGERPRINT = "SHA256:" + "A" * 43
ASKING = Actor(1, 1, "olga", Role.OWNER, token_id=1, access_key="A" * 20, web_session_id=1)

# What each costs must not grow with how many keys, users, servers and revocations there are.
QUESTIONS: dict[str, Callable[[Connection], Any]] = {
    "does anything let the key in": lambda c: openings.still_opens(c, 1, 1, FINGERPRINT, NOW),
    "where anything lets the key in": lambda c: keys_of_many.still_opened(c, [1, 2], 1, [FINGERPRINT], NOW),
    "credentials with a label on servers": lambda c: keys_of_many.credentials_labelled(c, [1, 2], "label"),
    "delete credentials": lambda c: keys_of_many.remove_credentials(c, [1, 2]),
    "user keys with a key": lambda c: revocations.user_keys_of_key(c, 1, FINGERPRINT),
    "places of a key: credentials": lambda c: key_places.credentials_after(c, 1, FINGERPRINT, NOW, after=0, limit=51),
    "places of a key: files": lambda c: key_places.unmanaged_keys_after(c, 1, FINGERPRINT, after=0, limit=51),
    "places of a key: deploy keys": lambda c: key_places.deploy_keys_after(c, 1, FINGERPRINT, after=0, limit=51),
    "credentials with a key": lambda c: revocations.credentials_of_key(c, 1, FINGERPRINT),
    "unmanaged keys with a key": lambda c: revocations.unmanaged_with_key(c, 1, FINGERPRINT),
    "deploy keys with a key": lambda c: deploy_keys.remove_from_workspace(c, 1, FINGERPRINT),
    "is the key revoked": lambda c: revoked_keys.get(c, 1, FINGERPRINT),
    "revocations of a key": lambda c: revocations.of_key(c, 1, FINGERPRINT),
    "let a key in again": lambda c: keys_of_many.unrevoke(c, [1, 2], [FINGERPRINT]),
    "whose key": lambda c: key_owners.owner_of(c, FINGERPRINT),
    "ended credentials": lambda c: credentials.ended_credentials(c, NOW, 500),
    "a page of credentials": lambda c: credential_lists.find_credentials(c, 1, 1, at=NOW, offset=0, limit=15),
    "a page of a user's keys": lambda c: user_keys.find_user_keys(c, 1, offset=0, limit=15),
    "a page of unmanaged keys": lambda c: unmanaged_keys.find(c, 1, 1, states=("new",), offset=0, limit=15),
    "a page of revoked keys": lambda c: revoked_keys.find(c, 1, offset=0, limit=15),
    "a page of deploy keys": lambda c: deploy_keys.find(c, 1, offset=0, limit=15),
    "a page of repositories": lambda c: repositories.find(c, 1, offset=0, limit=15),
    "acknowledge revocations": lambda c: revocations.acknowledge(c, 1, 5, NOW, most=10),
    "what hosts acknowledged": lambda c: applied.altered(c, [1]),
    "what a host refuses": lambda c: revocations.refused_keys(c, 1, unacknowledged=10, acknowledged=10),
    "acknowledge credentials": lambda c: credentials.acknowledge(c, 1, 5, NOW),
    "known fingerprints": lambda c: host_reports.known_fingerprints(c, 1, [FINGERPRINT]),
    "requests that nobody decided": lambda c: requests.lapsing(c, NOW, 500),
    "requests that are over": lambda c: requests.over(c, NOW, 200),
    "did the key end": lambda c: expired_keys.end_of(c, 1, FINGERPRINT, NOW),
    "what ends soon": lambda c: endings.ending(c, NOW, NOW, 200),
    "ended user keys": lambda c: endings.ended_user_keys(c, NOW, 200),
    "what is to be sent": lambda c: webhooks.due(c, NOW, 500),
    "a page of what was sent": lambda c: webhooks.deliveries(c, 1, None, 50),
    "what was sent long ago": lambda c: webhooks.forget(c, NOW, 500),
    "what a deleted webhook left": lambda c: webhooks.clear(c, 1, 500),
    "a search in the log": lambda c: events.find(c, 1, EventFilter(search="x", person="olga"), Window(15, after=())),
    "a search in a server's log": lambda c: events.find(
        c, 1, EventFilter(server_id=1, key="x"), Window(15, after=(9,))
    ),
    "glass that was broken": lambda c: break_glass.of_keys(c, 1, 1, [FINGERPRINT], NOW),
    "events after one": lambda c: events.after(c, 1, 500),
    "delete a user key": lambda c: user_keys.remove_user_key(c, 1),
    "delete a credential": lambda c: credentials.remove_credential(c, 1),
    "what somebody still is": lambda c: standing.of(c, ASKING, NOW),
    "what a member of a repository still is": lambda c: standing.of(c, replace(ASKING, repository_id=1), NOW),
    "what is in a user key's way": lambda c: new_user_keys.place(c, ASKING, 1, FINGERPRINT, NOW, most=100),
    "a leaver's tokens": lambda c: offboardings._tokens.rows(c, 1, NOW),
}
# Tables with as many rows as there are keys, events or sessions; scanning one is what must not be.
LARGE = (
    "credentials|user_keys|key_owners|revocations|revoked_keys|unmanaged_keys|deploy_keys|events|key_uses|repositories"
    "|access_requests|expired_keys|webhook_deliveries|tokens|access_keys|web_sessions|repository_members|users"
)


@pytest.fixture(scope="module", params=DIALECTS)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """An open, migrated database, once of each kind; one for the file, as it is empty and nothing here fills it."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("indexes") / "keyrack.db"
        shutil.copyfile(request.getfixturevalue("migrated_file"), path)
        with Database.open(f"sqlite:///{path}") as opened:
            opened.seal_with(lambda _: bytes(32), lambda _: None)
            yield opened
        return
    cluster: Cluster = request.getfixturevalue("cluster")
    url = cluster.create_database(request.getfixturevalue("migrated_template"))
    with Database.open(url) as opened:
        opened.seal_with(lambda _: bytes(32), lambda _: None)
        yield opened
    cluster.drop_database(url)


@contextmanager
def asked() -> Iterator[list[tuple[str, Any]]]:
    """The statements sent to the database meanwhile, with their values."""
    statements: list[tuple[str, Any]] = []
    with each_statement(lambda sql, values: statements.append((sql, values))):
        yield statements


def plan(connection: Connection, statement: str, values: Any) -> str:
    """How the database answers a statement; on PostgreSQL, which scans small tables anyhow, only where it must."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        return "\n".join(row[3] for row in rows)
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    rows = connection.exec_driver_sql(f"EXPLAIN {statement}", values)
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("name", QUESTIONS)
def test_frequent_questions_read_no_whole_table(database: Database, name: str) -> None:
    def explain(connection: Connection) -> list[str]:
        with asked() as statements:
            QUESTIONS[name](connection)
        assert statements
        return [plan(connection, statement, values) for statement, values in statements]

    for shown in database.write(explain):
        assert not re.search(rf"SCAN ({LARGE})\b", shown), shown
        assert not re.search(rf"Seq Scan on ({LARGE})\b", shown), shown


@pytest.mark.parametrize(
    "name",
    [
        "a page of credentials",
        "ended credentials",
        "a page of a user's keys",
        "requests that nobody decided",
        "a page of what was sent",
    ],
)
def test_frequent_questions_sort_no_whole_list(database: Database, name: str) -> None:
    if database.dialect != "sqlite":
        pytest.skip("PostgreSQL decides by what is in the tables, and these are empty")

    def explain(connection: Connection) -> list[str]:
        with asked() as statements:
            QUESTIONS[name](connection)
        return [plan(connection, statement, values) for statement, values in statements]

    for shown in database.write(explain):
        # What stands behind the page itself, chosen within its limit, sorts no more than a page.
        chosen = re.split("SCAN (?:anon_1|page)", shown)[0]
        assert "USE TEMP B-TREE FOR ORDER BY" not in chosen, shown


@contextmanager
def steps_of_sqlite(connection: Connection, steps: list[int]) -> Iterator[None]:
    """Within it each step that SQLite makes is noted."""

    def step() -> int:
        steps.append(1)
        return 0

    raw: Any = connection.connection.driver_connection
    raw.set_progress_handler(step, 1)
    try:
        yield
    finally:
        raw.set_progress_handler(None, 0)


class Undo(Exception):
    """Ends a transaction whose rows no other test is to see."""


def test_raising_an_alarm_reads_few_of_a_servers_events(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    if database.dialect != "sqlite":
        pytest.skip("SQLite alone counts its steps")
    monkeypatch.setattr(events, "ALARM_SCAN_LIMIT", 10)
    steps: list[int] = []

    def ask(connection: Connection) -> None:
        given: dict[str, Any] = {
            column.name: {} if column.name == "details" else NOW if column.name == "at" else 1
            for column in tables.events.c
            if column.name not in ("id", "seal")
        }
        connection.execute(tables.events.insert(), [{**given, "reason": "other", "summary": "x"}] * 3000)
        with steps_of_sqlite(connection, steps):
            assert not events.was_raised(connection, 1, "reason", "x", NOW)
        connection.execute(tables.events.insert(), [{**given, "reason": "reason", "summary": "x"}])
        assert events.was_raised(connection, 1, "reason", "x", NOW)
        raise Undo

    with pytest.raises(Undo):
        database.write(ask)
    assert 0 < len(steps) < 1000


def test_keys_are_not_counted_before_there_can_be_as_many_as_one_may_have(database: Database) -> None:
    """To add one key takes as long for who has 3,000 as for who has none; the last one is taken, one more is not."""
    if database.dialect != "sqlite":
        pytest.skip("SQLite alone counts its steps")
    steps: list[int] = []

    def ask(connection: Connection) -> None:
        given = {"workspace_id": 1, "user_id": 1, "comment": "", "fingerprint": "x", "key_type": "ssh-ed25519"}
        rows = [
            {**given, "title": str(number), "public_key": str(number), "created_at": NOW, "seal": b""}
            for number in range(3000)
        ]
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        connection.execute(tables.user_keys.insert(), rows)
        with steps_of_sqlite(connection, steps):
            place = new_user_keys.place(connection, ASKING, 1, FINGERPRINT, NOW, most=100_000)
        assert not place.full
        assert not new_user_keys.place(connection, ASKING, 1, FINGERPRINT, NOW, most=3001).full
        assert new_user_keys.place(connection, ASKING, 1, FINGERPRINT, NOW, most=3000).full
        assert not new_user_keys.place(connection, ASKING, 2, FINGERPRINT, NOW, most=1).full
        raise Undo

    with pytest.raises(Undo):
        database.write(ask)
    assert 0 < len(steps) < 1000


def test_sent_deliveries_are_deleted_a_batch_at_a_time(database: Database) -> None:
    def fill(connection: Connection) -> list[int]:
        of_workspace = {"name": "w"}
        required = {column.name: 1 for column in tables.workspaces.c if not column.nullable and column.name != "id"}
        connection.execute(tables.workspaces.insert(), [{**required, **of_workspace, "id": 1, "created_at": NOW}])
        webhook = {"url": "x", "encrypted_secret": b"", "level": "info", "actions": [], "active": True, "cursor": 0}
        values = {**webhook, "workspace_id": 1, "created_by": "olga", "created_at": NOW}
        number = webhooks.add(connection, values)
        webhooks.enqueue(connection, number, (1, 2, 3, 4, 5, 6), NOW)
        for one in webhooks.deliveries(connection, number, None, 5):
            webhooks.change(connection, replace(one, state=webhooks.DELIVERED))
        later = NOW + timedelta(days=1)
        gone = [webhooks.forget(connection, later, 3) for _ in range(3)]
        assert [one.state for one in webhooks.deliveries(connection, number, None, 9)] == [webhooks.WAITING]
        raise Undo(gone)

    with pytest.raises(Undo) as undone:
        database.write(fill)
    assert undone.value.args == ([3, 2, 0],)


def test_a_name_that_a_newer_postgresql_takes_for_its_own_is_quoted() -> None:
    # https://www.postgresql.org/docs/18/sql-keywords-appendix.html: SYSTEM_USER is reserved since version 16.
    name = "system_user"
    for table in (table for table in tables.metadata.sorted_tables if name in table.c):
        for statement in (CreateTable(table), select(table.c[name])):
            made = str(statement.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
            assert f'"{name}"' in made, made
