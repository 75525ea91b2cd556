"""A database file that is removed, replaced, overwritten or damaged under a running process; and one that is not."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select

from keyrack.store.database import Database, DatabaseUnavailable
from keyrack.store.tables import instance_facts
from tests.waiting import wait_until

OTHER = str(Path(__file__).with_name("writing_process.py"))


def put(name: str, size: int = 1) -> Callable[[Connection], None]:
    def command(conn: Connection) -> None:
        conn.execute(insert(instance_facts).values(name=name, value="x" * size))

    return command


def names(conn: Connection) -> set[str]:
    return set(conn.execute(select(instance_facts.c.name)).scalars())


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def copy_of(path: Path) -> Path:
    """A backup as SQLite makes it: what waits in the log is in it."""
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(backup)) as copy:
        live.backup(copy)
    return backup


def removed(path: Path, backup: Path) -> None:
    path.unlink()


def removed_with_its_log(path: Path, backup: Path) -> None:
    for part in path.parent.glob(f"{path.name}*"):
        part.unlink()


def only_its_log_removed(path: Path, backup: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def another_moved_there(path: Path, backup: Path) -> None:
    os.replace(backup, path)


def removed_and_made_anew(path: Path, backup: Path) -> None:
    removed_with_its_log(path, backup)
    shutil.copyfile(backup, path)


def older_one_written_over_it(path: Path, backup: Path) -> None:
    shutil.copyfile(backup, path)


def cut_short(path: Path, backup: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path, backup: Path) -> None:
    os.truncate(path, 0)


def filled_with_noise(path: Path, backup: Path) -> None:
    with path.open("r+b") as file:
        file.write(random.randbytes(path.stat().st_size))


def an_older_one_restored_by_sqlite(path: Path, backup: Path) -> None:
    with closing(sqlite3.connect(path)) as live, closing(sqlite3.connect(backup)) as copy:
        copy.backup(live)


def the_logs_index_removed(path: Path, backup: Path) -> None:
    path.with_name(f"{path.name}-shm").unlink()


def its_log_cut_short(path: Path, backup: Path) -> None:
    os.truncate(path.with_name(f"{path.name}-wal"), 0)


def its_log_overwritten(path: Path, backup: Path) -> None:
    with path.with_name(f"{path.name}-wal").open("r+b") as file:
        file.write(random.randbytes(4096))


@pytest.mark.parametrize(
    "harm",
    [
        removed,
        removed_with_its_log,
        only_its_log_removed,
        another_moved_there,
        removed_and_made_anew,
        older_one_written_over_it,
        cut_short,
        emptied,
        filled_with_noise,
        an_older_one_restored_by_sqlite,
        the_logs_index_removed,
        its_log_cut_short,
        its_log_overwritten,
    ],
)
def test_a_file_that_is_not_the_same_any_more_is_neither_read_nor_written(
    harm: Callable[[Path, Path], None], sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = path_of(sqlite_url)
    with Database.open(sqlite_url) as database:
        database.listen(lambda ids: None)
        database.write(put("early"))
        backup = copy_of(path)
        database.write(put("later", 6_000_000))  # enough for SQLite to move its log into the file
        database.write(put("latest"))
        harm(path, backup)
        with pytest.raises(DatabaseUnavailable, match="nothing is read or written any more"):
            database.write(put("lost"))
        before = fingerprints(path)
        for use in (database.read, database.write):
            for _ in range(100):
                with pytest.raises(DatabaseUnavailable, match="nothing is read or written any more"):
                    use(names)
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) <= 2
    assert fingerprints(path) == before


def fingerprints(path: Path) -> dict[str, str]:
    """What lies there now, but for the file in which SQLite keeps its locks."""
    parts = (part for part in path.parent.glob(f"{path.name}*") if not part.name.endswith("-shm"))
    return {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in parts}


def test_an_idle_process_notices_by_itself(sqlite_url: str) -> None:
    path = path_of(sqlite_url)
    with Database.open(sqlite_url) as database:
        database.listen(lambda ids: None)
        database.write(put("early"))
        os.replace(copy_of(path), path)

        def refused() -> bool:
            try:
                database.read(names)
            except DatabaseUnavailable:
                return True
            return False

        wait_until(refused, "the check of the file")


def test_changes_that_sqlite_itself_makes_to_its_file_raise_no_alarm(sqlite_url: str) -> None:
    path = path_of(sqlite_url)
    with Database.open(sqlite_url) as database:
        database.listen(lambda ids: None)
        for number in range(20):
            database.write(put(f"{number}", 2_000_000))
            copy_of(path).unlink()
            with sqlite3.connect(path) as operator:
                operator.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                if number % 5 == 4:
                    operator.execute("DELETE FROM instance_facts WHERE name < ?", (str(number),))
                    operator.commit()
                    operator.execute("VACUUM")
            operator.close()
        database.write(put("last"))
        assert "last" in database.read(names)


def test_a_name_that_leads_to_another_file_now_is_noticed(sqlite_url: str) -> None:
    """Whoever comes by that name later would work with another database than this process."""
    path = path_of(sqlite_url)
    link = path.with_name("link.db")
    link.symlink_to(path)
    with Database.open(f"sqlite:///{link}") as database:
        database.listen(lambda ids: None)
        database.write(put("early"))
        # In one step: whoever looks at the file meanwhile would find it removed.
        other = path.with_name("other.db")
        other.symlink_to(copy_of(path))
        other.replace(link)
        with pytest.raises(DatabaseUnavailable, match="replaced by another file"):
            database.write(put("lost"))


def test_a_file_with_two_names_is_not_opened_by_either(sqlite_url: str) -> None:
    """By each name SQLite would keep another log, and each process would overwrite what the others write."""
    path = path_of(sqlite_url)
    with Database.open(sqlite_url) as database:
        database.write(put("early"))
        os.link(path, path.with_name("second.db"))
        for name in (path, path.with_name("second.db")):
            with (
                Database.open(f"sqlite:///{name}") as other,
                pytest.raises(DatabaseUnavailable, match=r"2 names \(hard links\)"),
            ):
                other.write(put("lost"))
        database.write(put("later"))
        assert database.read(names) == {"early", "later"}


def test_a_file_that_is_no_database_is_reported_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "keyrack.db"
    path.write_bytes(random.randbytes(40_960))
    with Database.open(f"sqlite:///{path}") as database, pytest.raises(DatabaseUnavailable, match="damaged"):
        database.read(names)


def test_processes_that_open_and_close_the_file_lose_no_commit(sqlite_url: str) -> None:
    """Each that leaves believes to be the last one if somebody's locks are gone, and removes the log."""
    with Database.open(sqlite_url) as database:
        database.listen(lambda ids: None)
        for number in range(8):
            database.write(put(f"{number}"))
            database.read(names)
            others = subprocess.run(
                [sys.executable, OTHER, sqlite_url, f"other{number}", "1", "1", "1"], check=True, timeout=60
            )
            assert others.returncode == 0
        # What a process finds that starts after this one was killed:
        found = subprocess.run(
            [sys.executable, "-c", _LIST, str(path_of(sqlite_url))], check=True, timeout=60, capture_output=True
        )
        assert {f"{number}" for number in range(8)} <= set(found.stdout.decode().split())


_LIST = """
import sqlite3, sys
for (name,) in sqlite3.connect(sys.argv[1]).execute("SELECT name FROM instance_facts"):
    print(name)
"""


def test_changes_of_another_process_are_noticed_while_this_one_only_reads(sqlite_url: str) -> None:
    announced: set[int] = set()
    with Database.open(sqlite_url) as database:
        database.listen(announced.update)
        for number in range(1, 4):
            database.read(names)
            subprocess.run(
                [sys.executable, OTHER, sqlite_url, f"other{number}", "1", "1", str(number)], check=True, timeout=60
            )
            wait_until(lambda: number in announced, "the change by another process")  # noqa: B023
