"""What is PostgreSQL's own: a server that goes away and comes back, and transactions that undo each other."""

from __future__ import annotations

import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, Select, insert, select, text, update

from keyrack.errors import Kind
from keyrack.store import changes as changes_module
from keyrack.store.changes import announce, changes
from keyrack.store.database import Database, DatabaseUnavailable
from keyrack.store.engine import listen, migrate, postgresql_session
from keyrack.store.engine.connect import DatabaseFull, DatabaseRefused, DatabaseUnusable
from keyrack.store.engine.execute import savepoint
from keyrack.store.engine.prepared import Row as PreparedRow
from keyrack.store.engine.prepared import prepared
from keyrack.store.hosts import servers
from keyrack.store.rows import Records
from keyrack.store.sealing import sums
from keyrack.store.tables import instance_facts
from keyrack.web.api import unanswered
from tests.postgres import Cluster, database_name
from tests.waiting import wait_until


def put(conn: Connection, name: str) -> None:
    conn.execute(insert(instance_facts).values(name=name, value="x"))


def names(conn: Connection) -> set[str]:
    return set(conn.execute(select(instance_facts.c.name)).scalars())


def test_a_restart_in_the_middle_is_survived(durable_cluster: Cluster) -> None:
    url = durable_cluster.create_database()
    migrate.upgrade(url)
    acknowledged: list[str] = []
    refused = threading.Event()
    done = threading.Event()
    announced: set[int] = set()

    def keep_writing(database: Database, thread: int) -> None:
        number = 0
        while not done.is_set():
            number += 1
            name = f"{thread}-{number}"
            try:
                database.write(lambda conn, name=name: put(conn, name))  # type: ignore[misc]
                acknowledged.append(name)
            except DatabaseUnavailable:
                refused.set()
                done.wait(0.05)

    with Database.open(url) as database, Database.open(url) as other, ThreadPoolExecutor(4) as pool:
        other.listen(announced.update)
        workers = [pool.submit(keep_writing, database, thread) for thread in range(4)]
        try:
            wait_until(lambda: len(acknowledged) > 50, "writes before the restart")
            durable_cluster.crash()
            wait_until(refused.is_set, "a write to be refused while the server is away")
            with pytest.raises(DatabaseUnavailable):
                other.read(names)
            durable_cluster.start()
            before = len(acknowledged)
            wait_until(lambda: len(acknowledged) > before + 50, "writes after the restart")
        finally:
            done.set()
        for worker in workers:
            worker.result(60)
        assert set(acknowledged) <= other.read(names)
        database.write(lambda conn: announce(conn, 9))
        wait_until(lambda: 9 in announced, "the listener to hear again")


def test_a_connection_that_breaks_within_a_savepoint_is_reported_as_broken(postgresql_url: str) -> None:
    def command(conn: Connection) -> None:
        with savepoint(conn), savepoint(conn):
            conn.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with Database.open(postgresql_url) as database:
        with pytest.raises(DatabaseUnavailable):
            database.write(command)
        database.write(lambda conn: put(conn, "afterwards"))
        assert database.read(names) >= {"afterwards"}


def test_prepared_statements_outlast_an_undone_savepoint(postgresql_url: str) -> None:
    def command(conn: Connection) -> None:
        assert not servers.by_ids(conn, [1])
        for _ in range(10):  # psycopg itself prepares what it is often asked
            conn.execute(text("SELECT 1"))
        conn.begin_nested().rollback()
        conn.execute(text("SELECT 1"))
        assert not servers.by_ids(conn, [1])

    with Database.open(postgresql_url) as database:
        database.write(command)


def test_connections_that_died_unnoticed_are_replaced_without_an_error(postgresql_url: str, cluster: Cluster) -> None:
    with Database.open(postgresql_url) as database, Database.open(cluster.url("postgres")) as operator:
        database.write(lambda conn: put(conn, "a"))
        database.read(names)
        operator.write(
            lambda conn: conn.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
                {"name": database.read(lambda c: c.execute(text("SELECT current_database()")).scalar_one())},
            ).all()
        )
        assert database.read(names) == {"a"}
        database.write(lambda conn: put(conn, "b"))
        assert database.read(names) == {"a", "b"}


def test_a_connection_that_dies_among_several_commands_counts_as_unavailable(postgresql_url: str) -> None:
    """As when the server is killed while a workspace file is applied: many commands in one transaction."""

    def several(conn: Connection) -> None:
        put(conn, "first")
        with sums.counting(conn), conn.begin_nested():
            put(conn, "second")
            conn.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with Database.open(postgresql_url) as database:
        with pytest.raises(DatabaseUnavailable):
            database.write(several)
        assert not {"first", "second"} & database.read(names)


@pytest.mark.parametrize("tidies", [False, True], ids=["plainly", "and whoever tidies up looks at it"])
def test_a_connection_that_dies_while_a_record_is_made_is_replaced(postgresql_url: str, tidies: bool) -> None:
    asked: list[int] = []

    def record(conn: Connection, row: PreparedRow) -> str:
        asked.append(1)
        try:
            if len(asked) < 3:  # at first by itself, where nothing more can be asked
                conn.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")
        finally:
            if tidies:
                conn.info.pop("nothing", None)
        return str(row.value)

    records = Records(record, named=("name",))
    with Database.open(postgresql_url) as database:
        database.write(lambda conn: put(conn, "a"))
        assert database.read(lambda conn: records.all(conn, _facts, "a")) == ["x"]
    assert len(asked) == 3


@prepared
def _facts(word: str) -> Select[Any]:
    return select(instance_facts).where(instance_facts.c.name == word)


@pytest.mark.parametrize(
    "changed",
    ["ALTER TABLE instance_facts ALTER value TYPE varchar(4000)", "DEALLOCATE ALL"],
    ids=["another type", "taken away"],
)
def test_a_statement_that_is_not_valid_any_more_is_prepared_anew(postgresql_url: str, changed: str) -> None:
    """As when a later version's migration changes a column beside a service that runs."""

    def asked(conn: Connection) -> list[Any]:
        return _facts.rows(conn, "a")

    def changing(conn: Connection) -> None:
        conn.exec_driver_sql(changed)

    with Database.open(postgresql_url) as database, Database.open(postgresql_url) as other:
        database.write(lambda conn: put(conn, "a"))
        for use in (database.read, database.write):
            assert use(asked)
        (database if changed.startswith("DEALLOCATE") else other).write(changing)
        for use in (database.read, database.write, database.read, database.write):
            assert use(asked)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("XX001", DatabaseUnusable),
        ("XX002", DatabaseUnusable),
        ("25P04", DatabaseUnavailable),
        ("40001", DatabaseUnavailable),
    ],
)
def test_a_failure_of_the_server_is_reported_as_the_databases(
    postgresql_url: str, code: str, kind: type[Exception]
) -> None:
    """Damaged data, a transaction that it gave up, one that it always undid: each is said to be the database's."""
    with Database.open(postgresql_url) as database:
        database.write(
            lambda conn: conn.exec_driver_sql(
                "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = '{code}'; END $$;"
                "CREATE TRIGGER fails BEFORE INSERT ON instance_facts FOR EACH ROW EXECUTE FUNCTION fails()"
            )
        )
        with pytest.raises(kind):
            database.write(lambda conn: put(conn, "a"))


def test_a_full_disk_that_shows_at_the_commit_leaves_no_doubt(postgresql_url: str) -> None:
    """Statements go ahead of their answers, so that the commit may be what hears of it; the server undid it all."""
    with Database.open(postgresql_url) as database:
        database.write(
            lambda conn: conn.exec_driver_sql(
                "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$;"
                "CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON instance_facts DEFERRABLE INITIALLY DEFERRED"
                " FOR EACH ROW EXECUTE FUNCTION fails()"
            )
        )
        with pytest.raises(DatabaseFull) as raised:
            database.write(lambda conn: put(conn, "a"))
        assert not raised.value.in_doubt
        said = unanswered(raised.value)
        assert (said.kind, "disk is full. Nothing was changed" in str(said)) == (Kind.UNAVAILABLE, True), said


def test_a_session_that_the_server_ended_by_a_timeout_counts_as_unavailable(postgresql_url: str) -> None:
    def slow(conn: Connection) -> None:
        number = int(conn.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
        assert not _facts.rows(conn, "a")
        conn.exec_driver_sql("SET idle_in_transaction_session_timeout = 10")
        wait_until(lambda: not _is_there(postgresql_url, number), "the end of the session")
        _facts.rows(conn, "a")

    with Database.open(postgresql_url) as database:
        with pytest.raises(DatabaseUnavailable):
            database.write(slow)
        database.write(lambda conn: put(conn, "b"))


def _is_there(url: str, process: int) -> bool:
    with psycopg.connect(url) as raw:
        return raw.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (process,)).fetchone() is not None


def test_changes_are_noticed_on_a_server_that_lacks_the_last_commits(
    cluster: Cluster, durable_cluster: Cluster
) -> None:
    """As after a failover: its transactions have numbers again that were seen already, or lower ones."""
    first, second = cluster.create_database(), durable_cluster.create_database()
    for url in (first, second):
        migrate.upgrade(url)
    with psycopg.connect(first, autocommit=True) as raw:
        ahead = _number(second) + 50
        while _number(first) < ahead:
            raw.execute("SELECT pg_current_xact_id()")
    places = [first]
    announced: set[int] = set()
    listener = listen.ChangeListener(lambda: psycopg.connect(places[-1], autocommit=True), announced.update, lambda: 0)
    listener.start()
    try:
        places.append(second)
        with Database.open(second) as other:
            other.write(lambda conn: announce(conn, 7))
        with psycopg.connect(cluster.url("postgres"), autocommit=True) as raw:
            raw.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database_name(first),)
            )
        wait_until(lambda: announced == {7}, "the change that the other server holds")
    finally:
        listener.close()


def _number(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as raw:
        row = raw.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint").fetchone()
        assert row is not None
        return int(row[0])


def test_a_server_that_is_not_there_counts_as_unavailable(tmp_path: Path) -> None:
    with Database.open(f"postgresql://keyrack@/x?host={tmp_path}") as database:
        for use in (database.read, database.write):
            with pytest.raises(DatabaseUnavailable, match="does not answer"):
                use(lambda conn: None)


def test_commands_that_undo_each_other_are_run_again(postgresql_url: str) -> None:
    both = threading.Barrier(2)
    runs: list[str] = []

    def crossing(first: str, second: str) -> None:
        def command(conn: Connection) -> None:
            runs.append(first)
            conn.execute(update(instance_facts).where(instance_facts.c.name == first).values(value=first))
            if len(runs) <= 2:
                both.wait(60)
            conn.execute(update(instance_facts).where(instance_facts.c.name == second).values(value=first))

        database.write(command)

    with Database.open(postgresql_url) as database:
        for name in "ab":
            database.write(lambda conn, name=name: put(conn, name))  # type: ignore[misc]
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(crossing, "a", "b"), pool.submit(crossing, "b", "a")]:
                done.result(60)
        assert len(runs) == 3, "PostgreSQL undid one of them"
        values = database.read(lambda conn: set(conn.execute(select(instance_facts.c.value)).scalars()))
        assert len(values) == 1


def test_a_change_without_a_notification_is_found_by_polling(postgresql_url: str) -> None:
    announced: set[int] = set()
    with Database.open(postgresql_url) as database, Database.open(postgresql_url) as silent:
        database.listen(announced.update)
        # As a process that dies between its commit and its NOTIFY.
        silent.write(
            lambda conn: conn.execute(
                insert(changes).values(server_id=4, change=text("pg_current_xact_id()::text::bigint"))
            )
        )
        wait_until(lambda: announced == {4}, "the slow poll")


def test_a_process_does_not_query_for_its_own_changes(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    floors: list[int] = []
    since = changes_module.since_on_postgresql

    def noted(raw: Any, floor: int) -> Any:
        floors.append(floor)
        return since(raw, floor)

    monkeypatch.setattr(listen, "POLL_SECONDS", 3600)
    monkeypatch.setattr(changes_module, "since_on_postgresql", noted)
    announced: list[int] = []
    with Database.open(postgresql_url) as database, Database.open(postgresql_url) as other:
        database.listen(announced.extend)
        for server_id in range(1, 20):
            database.write(lambda conn: announce(conn, server_id))  # noqa: B023
        other.write(lambda conn: announce(conn, 99))
        wait_until(lambda: 99 in announced, "the change by the other process")
    assert announced == [*range(1, 20), 99], "each is delivered once"
    assert len(floors) <= 3, "at the start, for the other process, and for a notification before the first"


def test_changes_of_a_transaction_that_took_long_are_noticed(postgresql_url: str) -> None:
    announced: list[int] = []
    lock_held, go_on = threading.Event(), threading.Event()

    def slow(conn: Connection) -> None:
        announce(conn, 1)
        conn.execute(text("SELECT pg_current_xact_id()"))  # numbered before the quick one
        lock_held.set()
        go_on.wait(60)

    with Database.open(postgresql_url) as database, Database.open(postgresql_url) as listening:
        listening.listen(announced.extend)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(database.write, slow)
            lock_held.wait(60)
            database.write(lambda conn: announce(conn, 2))
            wait_until(lambda: 2 in announced, "the quick one")
            go_on.set()
            waiting.result(60)
            wait_until(lambda: 1 in announced, "the slow one, whose number is lower")
    assert sorted(announced) == [1, 2], "each is delivered once"


def test_a_role_that_does_not_sync_its_commits_is_overruled(postgresql_url: str) -> None:
    def setting(conn: Connection) -> str:
        return str(conn.execute(text("SHOW synchronous_commit")).scalar_one())

    with Database.open(postgresql_url) as operator:
        operator.write(
            lambda conn: conn.execute(
                text(
                    "DO $$ BEGIN EXECUTE format("
                    "'ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$"
                )
            )
        )
    with Database.open(postgresql_url) as database:
        assert database.write(setting) == "on"


def test_a_command_that_waited_for_the_workspace_lock_sees_what_the_one_before_did(postgresql_url: str) -> None:
    """Also where the database is set to an isolation by which he would see what there was as he began to wait."""
    _set(postgresql_url, "SET default_transaction_isolation = 'repeatable read'")
    began, saw = threading.Event(), set[str]()

    def first(conn: Connection) -> None:
        began.set()
        wait_until(lambda: waiting(conn), "the other one to wait for the lock")
        put(conn, "first")

    def waiting(conn: Connection) -> bool:
        asked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        return bool(conn.execute(text(asked)).scalar_one())

    with Database.open(postgresql_url) as database, ThreadPoolExecutor(1) as pool:
        one = pool.submit(database.write, first, workspace_lock=7)
        began.wait(60)
        database.write(lambda conn: saw.update(names(conn)), workspace_lock=7)
        one.result(60)
    assert "first" in saw


def test_a_session_that_another_connection_had_before_is_known(postgresql_url: str) -> None:
    """As a pooler hands them on from one transaction to the next."""
    with psycopg.connect(postgresql_url) as raw:
        assert postgresql_session.begin(raw, writer=True)
        assert not postgresql_session.begin(raw, writer=False)
        raw.autocommit = True
        raw.execute("DISCARD ALL")  # as a pooler does between sessions
        assert postgresql_session.begin(raw, writer=True)


def test_a_server_that_does_not_sync_is_named(postgresql_url: str, durable_cluster: Cluster) -> None:
    with Database.open(postgresql_url) as database:
        assert database.lossy_settings() == ("fsync",)
    with Database.open(durable_cluster.url("postgres")) as database:
        assert database.lossy_settings() == ()


def test_no_tables_are_made_in_a_database_that_cannot_hold_every_name(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url("postgres"), autocommit=True) as raw:
        for encoding in ("LATIN1", "SQL_ASCII"):
            name = f"{encoding.lower()}_{os.getpid()}"
            form = f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0 STRATEGY FILE_COPY"
            raw.execute(f"CREATE DATABASE {name} {form}")
            try:
                with pytest.raises(DatabaseRefused, match="createdb --encoding UTF8"):
                    migrate.upgrade(cluster.url(name))
                with Database.open(cluster.url(name)) as database:
                    kept = database.read(lambda conn: conn.execute(text("SELECT 'Ünal'")).scalar_one())
                    assert kept == "Ünal"
                    if encoding == "LATIN1":
                        with pytest.raises(DatabaseRefused, match="cannot hold this text"):
                            database.read(lambda conn: conn.execute(text("SELECT '漢'")).scalar_one())
            finally:
                cluster.drop_database(cluster.url(name))


def test_a_process_with_thousands_of_descriptors_notices_changes(postgresql_url: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1500:
        pytest.skip("this machine allows too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1500), hard))
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(1030)]
    try:
        announced: set[int] = set()
        with Database.open(postgresql_url) as database, Database.open(postgresql_url) as other:
            database.listen(announced.update)
            for server_id in (1, 2, 3):
                other.write(lambda conn: announce(conn, server_id))  # noqa: B023
                wait_until(lambda: server_id in announced, "the change")  # noqa: B023
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _set(database_url: str, setting: str) -> None:
    """Give a database a setting, for those who connect from now on."""
    with psycopg.connect(database_url, autocommit=True) as raw:
        raw.execute("SET default_transaction_read_only = off")
        raw.execute(f'ALTER DATABASE "{database_name(database_url)}" {setting}')


def test_a_read_only_server_counts_as_away_until_it_takes_changes(postgresql_url: str) -> None:
    with Database.open(postgresql_url) as database:
        _set(postgresql_url, "SET default_transaction_read_only = on")
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            database.check()
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            database.write(lambda conn: conn.execute(text("CREATE TABLE probe (a INTEGER)")))
        assert database.read(lambda conn: conn.execute(text("SELECT 1")).scalar_one()) == 1
        _set(postgresql_url, "RESET default_transaction_read_only")
        database.check()


def test_bytes_arrive_as_they_are_whatever_a_backslash_means_there(postgresql_url: str) -> None:
    _set(postgresql_url, "SET standard_conforming_strings = off")
    with Database.open(postgresql_url) as database:
        for ask in (database.read, database.write):
            shown = ask(lambda conn: conn.exec_driver_sql("SHOW standard_conforming_strings").scalar_one())
            assert shown == "on"


def test_a_missing_right_of_the_database_role_is_reported_as_refused(postgresql_url: str) -> None:
    role = f"app_{os.getpid()}"
    with psycopg.connect(postgresql_url, autocommit=True) as raw:
        raw.execute(f"CREATE ROLE {role} LOGIN")
        raw.execute(f"GRANT SELECT ON alembic_version TO {role}")
    try:
        with Database.open(postgresql_url.replace("keyrack@", f"{role}@")) as database:
            for ask in (database.read, database.write):
                with pytest.raises(DatabaseRefused, match="permission denied for table events"):
                    ask(lambda conn: conn.execute(text("SELECT COUNT(*) FROM events")).scalar_one())
            with pytest.raises(DatabaseRefused, match="permission denied"):
                database.check()
    finally:
        with psycopg.connect(postgresql_url, autocommit=True) as raw:
            raw.execute(f"DROP OWNED BY {role}")
            raw.execute(f"DROP ROLE {role}")
