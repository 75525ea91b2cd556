"""With a hundred thousand rows in tables that grow, hot questions read no whole one, as each database plans them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Integer, LargeBinary, String, Table, Text

from keyrack.core.keys import damaged_rows
from keyrack.model import Window
from keyrack.store import per_server, tables
from keyrack.store.database import Database
from keyrack.store.hosts import host_reports, servers, sessions
from keyrack.store.keys import (
    credential_lists,
    credentials,
    findings,
    key_owners,
    key_places,
    key_policy,
    openings,
    revocations,
    user_keys,
)
from keyrack.store.people import offboardings, tokens, web_sessions
from keyrack.store.sealing import sealed_tables, sums
from keyrack.store.tables.columns import EPOCH, Flag, Json
from tests.store.test_indexes import FINGERPRINT, asked

ROWS = 100_000 if os.environ.get("KEYRACK_LONG") else 20_000
"""What a hundred thousand rows cost to write is left to the long form; from some thousand on both plan alike."""
OWNERS = 2_000
NOW = datetime(2026, 1, 1, tzinfo=UTC)
FILLED: tuple[tuple[Table, int], ...] = (
    (tables.workspaces, 1),
    (tables.users, OWNERS),
    (tables.servers, OWNERS),
    (tables.server_tags, OWNERS),
    (tables.system_users, OWNERS),
    (tables.credentials, ROWS),
    (tables.user_keys, ROWS),
    (tables.revocations, ROWS),
    (tables.key_owners, ROWS),
    (tables.tokens, ROWS),
    (tables.sessions, ROWS),
    (tables.web_sessions, ROWS),
)
# Empty in some rows; here in none, as in most of a table that has grown.
ALSO_FILLED = ("fingerprint", "key_type", "public_key", "acknowledged_at", "user_key_id", "used_at")
HOSTS = tuple(range(1, 11))


def _documents(connection: Connection) -> None:
    with per_server.batch(connection, HOSTS):
        credentials.sealed_credentials(connection, 1, NOW)
        revocations.refused_keys(connection, 1, unacknowledged=10, acknowledged=10)
        sums.fits(connection, 1)


QUESTIONS: dict[str, Callable[[Connection], Any]] = {
    "who proves itself": lambda c: servers.by_agent_secrets(c, [b"one", b"two"]),
    "how hosts stand": lambda c: servers.revision_states(c, HOSTS),
    "servers of reports": lambda c: servers.by_ids(c, HOSTS, locked=True),
    "what waits for hosts' word": lambda c: host_reports.awaited(c, HOSTS),
    "acknowledge credentials": lambda c: credentials.acknowledge(c, 1, 5, NOW),
    "acknowledge revocations": lambda c: revocations.acknowledge(c, 1, 5, NOW, most=10),
    "documents of many hosts": _documents,
    "one credential": lambda c: credentials.get_credential(c, 1, 1, NOW),
    "a page of credentials": lambda c: credential_lists.find_credentials(c, 1, 1, at=NOW, offset=0, limit=15),
    "does anything let the key in": lambda c: openings.still_opens(c, 1, 1, FINGERPRINT, NOW),
    "places of a key": lambda c: key_places.credentials_after(c, 1, FINGERPRINT, NOW, after=0, limit=51),
    "whose key": lambda c: key_owners.owner_of(c, FINGERPRINT),
    "delete a user key": lambda c: user_keys.remove_user_key(c, 1),
    "delete a credential": lambda c: credentials.remove_credential(c, 1),
    "logins that a key opened": lambda c: sessions.of_key(c, 1, FINGERPRINT),
    "a leaver's logins": lambda c: offboardings._sessions.rows(c, 1, [FINGERPRINT]),
    "browsers' sessions that are over": lambda c: web_sessions.remove_ended(c, EPOCH, EPOCH),
    "a page of tokens": lambda c: tokens.find_api_tokens(c, 1, Window(15)),
    "a further page of tokens": lambda c: tokens.find_api_tokens(c, 1, Window(15, after=(5,))),
}
LARGE = "credentials|user_keys|revocations|key_owners|tokens|sessions|web_sessions"


def value(column: Column[Any], count: int, dialect: str) -> str:
    """What the row with number n has there, in SQL."""
    if column.foreign_keys:
        (key,) = column.foreign_keys
        most = {table.name: rows for table, rows in FILLED}.get(key.column.table.name, 1)
        owners = min(most, count)
        return f"n - (n - 1) / {owners} * {owners}"  # no %, which psycopg takes for a place
    if isinstance(column.type, Flag):
        return "false"
    if isinstance(column.type, Json):
        return "'{}'"
    if isinstance(column.type, LargeBinary) and column.unique:
        return "CAST('x' || n AS BLOB)" if dialect == "sqlite" else "convert_to('x' || n, 'UTF8')"
    if isinstance(column.type, LargeBinary):
        return "NULL" if column.nullable else "''"
    if isinstance(column.type, String | Text):
        return "'x' || n"
    return "n"


def fill(connection: Connection) -> None:
    """All tables, the same on both databases."""
    for table, count in FILLED:
        named = [column for column in table.c if not column.nullable or column.name in ALSO_FILLED]
        numbers = f"generate_series(1, {count}) AS numbers(n)"
        if connection.dialect.name == "sqlite":
            numbers = (
                f"(WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < {count}) SELECT n FROM r)"
            )
        columns = ", ".join(column.name for column in named)
        values = ", ".join(value(column, count, connection.dialect.name) for column in named)
        connection.exec_driver_sql(f"INSERT INTO {table.name} ({columns}) SELECT {values} FROM {numbers}")
    connection.exec_driver_sql("ANALYZE")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """A database with all those rows, once of each kind."""
    path: Path = tmp_path_factory.mktemp("plans") / "keyrack.db"
    url = f"sqlite:///{path}"
    if request.param == "postgresql":
        url = request.getfixturevalue("cluster").create_database(request.getfixturevalue("migrated_template"))
    else:
        shutil.copyfile(request.getfixturevalue("migrated_file"), path)
    with Database.open(url) as opened:
        opened.seals.use(lambda name: bytes(32))
        opened.write(fill)
        yield opened


def explained(database: Database, question: Callable[[Connection], Any]) -> list[str]:
    """How each statement of a question is planned."""

    def explain(connection: Connection) -> list[str]:
        with asked() as statements:
            question(connection)
        plans = []
        for statement, values in statements:
            how = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
            rows = connection.exec_driver_sql(f"{how} {statement}", values)
            plans.append("\n".join(str(row[3] if how.endswith("PLAN") else row[0]) for row in rows))
        return plans

    return database.write(explain)


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_large_table_is_read_whole(database: Database, name: str) -> None:
    shown = explained(database, QUESTIONS[name])
    assert shown
    for one in shown:
        assert not re.search(rf"(SCAN|Seq Scan on) ({LARGE})\b", one), one


class _Undone(Exception):
    """Ends a transaction of which nothing is to stay."""


@pytest.mark.parametrize("limit", [30, 200])  # which nobody else asks for here: those plans are of other rows
def test_a_page_is_not_planned_at_each_call(database: Database, limit: int) -> None:
    """To plan it takes PostgreSQL longer than to read it, and it does so as long as it thinks that this pays."""
    if database.dialect != "postgresql":
        pytest.skip("SQLite plans a statement as it prepares it")
    counted = (
        "SELECT coalesce(sum(custom_plans), 0) FROM pg_prepared_statements"
        " WHERE statement LIKE 'SELECT credentials.id%%LIMIT%%'"
    )
    plans: list[int] = []

    def asked_often(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE credentials SET server_id = 1")
        connection.exec_driver_sql("ANALYZE credentials")
        plans.append(connection.exec_driver_sql(counted).scalar_one())
        for _ in range(12):
            credential_lists.find_credentials(connection, 1, 1, at=NOW, offset=0, limit=limit)
        plans.append(connection.exec_driver_sql(counted).scalar_one())
        raise _Undone

    with pytest.raises(_Undone):
        database.write(asked_often)
    before, after = plans
    assert after - before == 5  # as many as PostgreSQL makes before it compares


@pytest.mark.parametrize("name", ["credentials", "user_keys", "revocations", "system_users", "server_tags"])
def test_a_check_of_all_rows_sorts_none_of_them(database: Database, name: str) -> None:
    table = tables.metadata.tables[name]
    after = [1 if isinstance(column.type, Integer) else "x" for column in table.primary_key]

    def piece(connection: Connection) -> Any:
        own = damaged_rows.belongs(table, 1)
        return next(sealed_tables.pieces(connection, table, own, after=after, batch_size=100))

    shown = explained(database, piece)
    assert shown
    for one in shown:
        assert not re.search(r"TEMP B-TREE|\bSort\b", one), one


def test_a_piece_of_all_keys_on_servers_sorts_none_of_the_others(database: Database) -> None:
    """Of 100,000 keys each piece of 500 took a quarter of a second, and one call reads forty."""
    (shown, *_) = explained(database, lambda c: findings.credentials_after(c, 1, 5, 5, 500))
    # PostgreSQL sorts the keys of each server by themselves.
    assert not re.search(r"TEMP B-TREE|(?<!Incremental )Sort  ", shown), shown


def test_a_page_of_keys_that_a_policy_would_hit_sorts_none_of_the_others(database: Database) -> None:
    tried = (1, ["ssh-ed25519"], 400)

    def pages(connection: Connection) -> None:
        key_policy.suspects(connection, *tried, after=("x", 5), limit=201)
        key_policy.suspects_on_servers(connection, *tried, after=(5, 5), limit=201)

    for shown in explained(database, pages):
        # PostgreSQL sorts the keys of each user, and of each server, by themselves.
        assert not re.search(r"TEMP B-TREE|(?<!Incremental )Sort  ", shown), shown


def test_a_key_is_found_by_the_index_of_fingerprints(database: Database) -> None:
    if database.dialect != "sqlite":
        pytest.skip("PostgreSQL counts for itself what is rarer")

    def explain(connection: Connection) -> str:
        connection.exec_driver_sql("DELETE FROM sqlite_stat1")  # as in a database that nobody ever analysed
        connection.exec_driver_sql("ANALYZE sqlite_schema")
        with asked() as statements:
            openings.still_opens(connection, 1, 1, FINGERPRINT, NOW)
        sql, values = next(one for one in statements if "FROM credentials" in one[0])
        shown = "\n".join(str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values))
        connection.exec_driver_sql("ANALYZE")
        return shown

    assert "ix_credentials_fingerprint" in database.write(explain)
