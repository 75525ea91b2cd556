"""The contract of Database, the same on SQLite and on PostgreSQL."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from keyrack.store.changes import changes
from keyrack.store.database import Database, DatabaseUnavailable, announce
from keyrack.store.engine.connect import DatabaseAltered, parse_url
from keyrack.store.tables import instance_facts
from tests.waiting import wait_until

WRITING_PROCESS = Path(__file__).with_name("writing_process.py")


class Refused(Exception):
    """What a command of ours may raise."""


def put(name: str, value: str = "x") -> Callable[[Connection], str]:
    """A command that leaves a row and returns its name."""

    def command(conn: Connection) -> str:
        conn.execute(insert(instance_facts).values(name=name, value=value))
        return name

    return command


def put_and_announce(name: str, *server_ids: int) -> Callable[[Connection], None]:
    def command(conn: Connection) -> None:
        put(name)(conn)
        for server_id in server_ids:
            announce(conn, server_id)

    return command


def names(conn: Connection) -> set[str]:
    return set(conn.execute(select(instance_facts.c.name)).scalars())


@contextlib.contextmanager
def writing_process(
    url: str, prefix: str, *, threads: int, writes: int, server_id: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes, see writing_process.py."""
    process = subprocess.Popen(
        [sys.executable, WRITING_PROCESS, url, prefix, str(threads), str(writes), str(server_id)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_a_write_returns_what_the_command_returned_and_a_read_finds_it(database: Database) -> None:
    assert database.write(put("a")) == "a"
    assert database.read(names) == {"a"}


def test_a_command_that_raises_leaves_nothing_and_its_exception_reaches_the_caller(database: Database) -> None:
    refusal = Refused("no")

    def command(conn: Connection) -> None:
        put_and_announce("a", 7)(conn)
        raise refusal

    announced: list[frozenset[int]] = []
    database.listen(announced.append)
    with pytest.raises(Refused) as caught:
        database.write(command)
    assert caught.value is refusal
    assert database.read(names) == set()
    database.write(put_and_announce("b", 8))
    wait_until(lambda: announced, "the announcement of the write that went well")
    assert frozenset[int]().union(*announced) == {8}


def test_a_command_that_fails_does_not_harm_those_it_waited_with(database: Database) -> None:
    lock_held, go_on = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        lock_held.set()
        go_on.wait(60)

    def one(number: int) -> Callable[[Connection], None]:
        def command(conn: Connection) -> None:
            put_and_announce(f"n{number}", number)(conn)
            if number % 3 == 0:
                raise Refused
            if number % 3 == 1:
                conn.execute(insert(instance_facts).values(name=f"n{number}", value="twice"))

        return command

    with ThreadPoolExecutor(31) as pool:
        first = pool.submit(database.write, hold)
        lock_held.wait(60)
        others: list[Future[None]] = [pool.submit(database.write, one(number)) for number in range(30)]
        go_on.set()
        first.result(60)
        outcomes = [type(other.exception(60)) for other in others]
    assert outcomes == [Refused, IntegrityError, type(None)] * 10
    assert database.read(names) == {f"n{number}" for number in range(2, 30, 3)}


def test_a_command_may_survive_an_expected_error_in_a_savepoint_of_its_own(database: Database) -> None:
    def command(conn: Connection) -> str:
        put("a")(conn)
        try:
            with conn.begin_nested():
                put("a")(conn)
        except IntegrityError:
            put("b")(conn)
            return "taken"
        return "free"

    assert database.write(command) == "taken"
    assert database.read(names) == {"a", "b"}


def test_a_command_cannot_commit_by_itself(database: Database) -> None:
    with pytest.raises((RuntimeError, DBAPIError)):
        database.write(lambda conn: conn.commit())
    assert database.write(put("a")) == "a"


def test_a_read_sees_one_instant(database: Database) -> None:
    database.write(put("before"))

    def question(conn: Connection) -> tuple[set[str], set[str]]:
        first = names(conn)
        other = threading.Thread(target=database.write, args=(put("meanwhile"),))
        other.start()
        other.join(60)
        return first, names(conn)

    assert database.read(question) == ({"before"}, {"before"})
    assert database.read(names) == {"before", "meanwhile"}


def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises((DBAPIError, DatabaseUnavailable)):
        database.read(put("a"))
    with pytest.raises(RuntimeError, match="inside a write"):
        database.read(lambda conn: announce(conn, 1))
    assert database.read(names) == set()


def test_fifty_threads_write_and_read_at_once(database: Database) -> None:
    database.write(put("counter", "0"))

    def count_up(conn: Connection) -> None:
        value = text("CAST(CAST(value AS INTEGER) + 1 AS VARCHAR(20))")
        conn.execute(update(instance_facts).where(instance_facts.c.name == "counter").values(value=value))

    def work(thread: int) -> None:
        for number in range(10):
            database.write(count_up)
            name = database.write(put(f"{thread}-{number}"))
            assert name in database.read(names), "what was acknowledged is not to be seen"

    with ThreadPoolExecutor(50) as pool:
        for done in [pool.submit(work, thread) for thread in range(50)]:
            done.result(240)
    rows = dict(database.read(lambda conn: conn.execute(select(instance_facts.c.name, instance_facts.c.value)).all()))
    assert rows.pop("counter") == "500"
    assert len(rows) == 500


def test_commands_under_the_workspace_lock_decide_on_the_current_state(database: Database) -> None:
    def only_if_alone(name: str) -> Callable[[Connection], bool]:
        def command(conn: Connection) -> bool:
            if conn.execute(select(func.count()).select_from(instance_facts)).scalar_one():
                return False
            put(name)(conn)
            return True

        return command

    with ThreadPoolExecutor(20) as pool:
        tried = [pool.submit(database.write, only_if_alone(f"n{number}"), workspace_lock=1) for number in range(20)]
        assert sum(done.result(60) for done in tried) == 1


def test_a_listener_is_told_of_each_change_once_it_can_be_read(database: Database) -> None:
    announced: set[int] = set()
    found: list[bool] = []

    def listener(server_ids: frozenset[int]) -> None:
        found.append({f"s{server_id}" for server_id in server_ids} <= database.read(names))
        announced.update(server_ids)

    def broken(_: frozenset[int]) -> None:
        raise Refused

    database.listen(broken)
    stop = database.listen(listener)
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: database.write(put_and_announce(f"s{n}", n)), range(40)))
    wait_until(lambda: announced == set(range(40)), "all announcements")
    assert all(found)
    stop()
    count = len(found)
    later: set[int] = set()
    database.listen(later.update)
    database.write(put_and_announce("s99", 99))
    wait_until(lambda: 99 in later, "the announcement to the second listener")
    assert len(found) == count


def test_a_server_that_is_gone_is_announced_like_any_other(database: Database) -> None:
    announced: set[int] = set()
    database.listen(announced.update)
    database.write(lambda conn: announce(conn, 12345))
    wait_until(lambda: announced == {12345}, "an announcement without a row in servers")


def test_a_listener_is_told_of_changes_by_another_process(database: Database, database_url: str) -> None:
    announced: set[int] = set()
    database.listen(announced.update)
    database.write(put_and_announce("mine", 5))
    with writing_process(database_url, "other", threads=1, writes=1, server_id=77) as process:
        wait_until(lambda: 77 in announced, "the other process's announcement")
        assert process.wait(60) == 0
    with writing_process(database_url, "again", threads=1, writes=1, server_id=78):
        # While we write ourselves, the other's changes must not be taken for our own.
        for number in range(100_000):
            database.write(put_and_announce(f"mine-{number}", 5))
            if 78 in announced:
                break
    assert announced == {5, 77, 78}


def test_two_processes_write_at_the_same_time(database: Database, database_url: str) -> None:
    with writing_process(database_url, "other", threads=4, writes=50) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it is under way
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: database.write(put(f"mine-{n}")), range(200)))
        process.stdout.read()
        assert process.wait(120) == 0
    expected = {f"mine-{n}" for n in range(200)} | {f"other-{t}-{n}" for t in range(4) for n in range(50)}
    assert database.read(names) == expected


def test_acknowledged_writes_survive_kill_9(database: Database, database_url: str) -> None:
    with writing_process(database_url, "killed", threads=16, writes=1_000_000) as process:
        assert process.stdout is not None
        acknowledged = {process.stdout.readline().strip() for _ in range(300)}
        process.kill()
        # Whole lines only: the last may have been cut by the kill.
        acknowledged |= {line.strip() for line in process.stdout.read().splitlines(keepends=True) if line[-1:] == "\n"}
    assert len(acknowledged) >= 300
    kept = database.read(names)
    assert acknowledged - kept == set()
    assert database.write(put("after")) == "after"
    announced = database.read(lambda conn: conn.execute(select(changes.c.server_id)).scalars().all())
    assert announced == [1]


def test_closing_a_database_finishes_waiting_commands_and_closes_everything(database_url: str) -> None:
    before = set(threading.enumerate())
    database = Database.open(database_url)
    announced: set[int] = set()
    database.listen(announced.update)
    lock_held = threading.Event()

    def slow(conn: Connection) -> str:
        lock_held.set()
        conn.execute(select(instance_facts.c.name)).all()
        return put_and_announce("slow", 3)(conn) or "done"

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(database.write, slow)
        lock_held.wait(60)
        waiting.result(60)
        database.close()
    database.close()
    gc.collect()  # a connection left open warns here, and a warning fails the test
    wait_until(lambda: set(threading.enumerate()) <= before, "the database's threads to end")
    for use in (lambda: database.read(names), lambda: database.write(put("late")), lambda: database.listen(print)):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    with Database.open(database_url) as again:
        assert again.read(names) == {"slow"}


def test_a_database_opened_and_never_used_closes(database_url: str) -> None:
    Database.open(database_url).close()


def test_a_database_error_does_not_show_values(database: Database) -> None:
    database.write(put("a", "an-open-secret"))
    with pytest.raises(IntegrityError) as caught:
        database.write(put("a", "an-open-secret"))
    assert "an-open-secret" not in str(caught.value)


def test_a_missing_table_is_not_taken_for_a_missing_database(bare_url: str) -> None:
    with Database.open(bare_url) as bare, pytest.raises(DatabaseAltered, match="instance_facts"):
        bare.read(names)


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://keyrack@db-1,db-2/keyrack?target_session_attrs=read-write", "db-1,db-2", "5432,5432"),
        ("postgres://k:p%40w@db-1:6000,[::1]:6001/keyrack", "db-1,::1", "6000,6001"),
    ],
)
def test_an_address_may_name_a_standby_too(url: str, host: str, port: str) -> None:
    parsed = parse_url(url)[1]
    given = parsed.get_dialect()().create_connect_args(parsed)[1]
    assert (given["host"], given["port"], given["dbname"]) == (host, port, "keyrack")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://root@localhost/x",
        "sqlite://",
        "sqlite:///:memory:",
        "keyrack.db",
        "",
        "postgresql://a@h:x/k",
        "postgresql://a@h:1,g:y/k",
    ],
)
def test_an_address_that_cannot_be_served_is_refused_in_words(url: str) -> None:
    with pytest.raises(ValueError, match=r"sqlite:"):
        Database.open(url)


@pytest.mark.parametrize("hosts", ["h/k", "h:1/k", "h:1,g:2/k"])
def test_a_part_of_a_password_is_not_taken_for_a_host(hosts: str) -> None:
    """The words for a host that is not found would show it."""
    with pytest.raises(ValueError, match="database address") as refused:
        Database.open(f"postgresql://u:p@hush@{hosts}")
    assert "hush" not in str(refused.value)
