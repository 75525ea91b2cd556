"""Copies of an SQLite database: made while it is served, checked, and put in its place; must open no file of a
database that is in use other than by SQLite.
"""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from keyrack.store.engine.disk import sync

# Rows that let somebody in: what was deleted since a backup stays deleted. The columns that name a row.
OPENING: Mapping[str, tuple[str, ...]] = {
    "users": ("id",),
    "credentials": ("id",),
    "grants": ("id",),
    "user_keys": ("id",),
    "deploy_keys": ("id",),
    "tokens": ("id",),
    "access_keys": ("id",),
    "repository_members": ("id",),
    "group_members": ("group_id", "user_id"),
    "server_tags": ("server_id", "tag"),
    # A source that was taken away since would bring back its keys.
    "key_sources": ("id",),
}
# What may have been narrowed since; it counts as it was last.
NARROWED: Mapping[str, tuple[str, ...]] = {
    "users": ("role", "policies", "password_hash", "disabled_at"),
    "tokens": ("revoked_at",),
    "access_keys": ("active",),
}
REFUSING = ("revocations", "revoked_keys", "expired_keys")

Row = tuple[object, ...]

LEFT_SECONDS = 86_400
# What keeps SQLite from a database that is whole for all one knows.
_KEPT_FROM_IT = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)
_MAGIC = b"SQLite format 3\x00"


class BackupProblem(Exception):
    """A file is no backup that can be restored, or the database is in use; the words say what to do."""


def copy(database: Path, target: Path, *, overwrite: bool = False) -> None:
    """Copy a database that may be in use into a new file (0600), whole as of one moment.

    SQLite's online backup in one step: writers go on meanwhile, and it never starts again. Raises BackupProblem.
    """
    if not database.exists():
        raise BackupProblem(f"There is no database at {database}.")
    if target.exists() and not overwrite:
        raise BackupProblem(f"{target} exists already; give another name, or --overwrite.")
    here = database.resolve()
    log = target.resolve().parent == here.parent and target.name.startswith(f"{here.name}-")
    if log or (target.exists() and not _is_copy(target, database)):
        raise BackupProblem(f"{target} is no earlier copy, so it is not overwritten; give another name.")
    _forget_killed(target)
    # Of its own, as another backup to the same file may be under way.
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(_connect(database, "rw")) as source, closing(_connect(partial, "rw")) as into:
            source.backup(into)
            # One file, without a log beside it.
            into.execute("PRAGMA journal_mode = DELETE")
            _check_whole(into, partial)
        sync(partial)
        os.replace(partial, target)
        sync(target.parent)
    except sqlite3.Error as error:
        raise _not_copied(database, target, error) from error
    except OSError as error:
        raise BackupProblem(f"{target} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):  # a disk that takes nothing says so above
            partial.unlink()


def _forget_killed(target: Path) -> None:
    """Delete what copies to this target left that were killed; one of the last day may be under way."""
    left = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.partial(-journal)?")
    with suppress(OSError):
        for one in target.parent.iterdir():
            if left.fullmatch(one.name) and one.stat().st_mtime < time.time() - LEFT_SECONDS:
                one.unlink()


def check(file: Path, database: Path) -> None:
    """Refuse a file that is not a whole database of Keyrack's, or is the one to be replaced. Raises BackupProblem."""
    if not file.is_file():
        raise BackupProblem(f"There is no file {file}.")
    if database.exists() and file.samefile(database):
        raise BackupProblem(f"{file} is the database itself, and no copy of it.")
    try:
        with closing(_connect(file, "ro")) as raw:
            _check_whole(raw, file)
            names = {row[0] for row in raw.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise BackupProblem(f"{file} is no whole SQLite database: {error}.") from error
    if not {"alembic_version", "instance_facts", "servers", "events"} <= names:
        raise BackupProblem(f"{file} is an SQLite database, but not Keyrack's.")


def unpack(file: Path, target: Path) -> None:
    """Copy a backup into a new file (0600), with what waits in a log beside it, as a copy by other means may have one.

    Raises BackupProblem.
    """
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(_connect(file, "ro")) as source, closing(_connect(target, "rw")) as into:
            source.backup(into)
    except sqlite3.Error as error:
        raise _not_copied(file, target, error) from error
    except OSError as error:
        raise BackupProblem(f"{target} cannot be written: {error.strerror}. Nothing was changed.") from error


def _not_copied(source: Path, target: Path, error: sqlite3.Error) -> BackupProblem:
    # SQLite does not say which of the two it means.
    return BackupProblem(
        f"{source} cannot be copied to {target.parent}: {error}. Look at the rights of both, and room and state of "
        "their disks."
    )


@contextmanager
def alone_with(database: Path) -> Iterator[sqlite3.Connection | None]:
    """Hold a database that nobody else has open, as one file without a log; None where there is none that can be read.

    Raises BackupProblem while a service, `git-host` or another command has it open, and where only rights or the disk
    keep it from being read: what was taken away since a backup stands in it, and would come back without a word.
    """
    if not database.exists():
        yield None
        return
    raw = _connect(database, "rw")
    try:
        try:
            # Only whoever is alone with a database can take it out of write-ahead mode.
            mode = raw.execute("PRAGMA journal_mode = DELETE").fetchone()[0]
            raw.execute("PRAGMA locking_mode = EXCLUSIVE")
            raw.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise _in_use(database) from None
            if error.sqlite_errorcode & 0xFF in _KEPT_FROM_IT:
                raise BackupProblem(
                    f"{database} cannot be opened for writing: {error}. Look at its rights, those of its folder and of "
                    "what lies beside it, and room and state of its disk. Where it is lost, move it away first, with "
                    "its -wal and -shm. Nothing was changed."
                ) from None
            mode = ""
        except sqlite3.DatabaseError:
            mode = ""  # it is damaged, which is why somebody restores
        if mode == "wal":
            raise _in_use(database)
        yield raw if mode else None
    finally:
        raw.close()


def put_in_place(prepared: Path, database: Path, aside: Path) -> None:
    """Put the prepared one into the database's place and keep that one aside; the log of a damaged one goes with it.

    Whenever this is killed one of the two is in place, whole: a name without a database would look like a lost one.
    """
    for ending in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(f"{database}{ending}", f"{aside}{ending}")
    with suppress(FileNotFoundError):
        os.link(database, aside)
    os.rename(prepared, database)
    sync(database.parent)


def settle(file: Path) -> None:
    """Make a database that nobody has open one file without a log, and have it on the disk. Raises BackupProblem."""
    try:
        with closing(_connect(file, "rw")) as raw:
            raw.execute("PRAGMA journal_mode = DELETE")
        sync(file)
    except sqlite3.Error as error:
        raise BackupProblem(f"{file} cannot be written: {error}. Nothing was changed.") from error


class Newer:
    """A database that goes on from another, older one, and what it took away since."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def version(self) -> str:
        """The revision of its tables."""
        return str(self._raw.execute("SELECT version_num FROM alembic_version").fetchone()[0])

    def has_event(self, event_id: int, at: int, summary: str) -> bool:
        """Whether it has this very event, so that it was once the same database."""
        event = self._raw.execute("SELECT at, summary FROM events WHERE id = ?", (event_id,)).fetchone()
        return bool(event == (at, summary))

    def count_after(self, table: str, highest: int) -> int:
        """How many rows it has with a higher id."""
        return int(self._raw.execute(f"SELECT count(*) FROM {table} WHERE id > ?", (highest,)).fetchone()[0])  # noqa: S608

    def names(self, table: str, columns: Iterable[str]) -> set[Row]:
        """These columns of all rows."""
        return set(self._raw.execute(f"SELECT {', '.join(columns)} FROM {table}"))  # noqa: S608

    def rows(self, table: str) -> list[dict[str, object]]:
        """All rows of a table, as they are stored."""
        cursor = self._raw.execute(f"SELECT * FROM {table}")  # noqa: S608
        titles = [title[0] for title in cursor.description]
        return [dict(zip(titles, row, strict=True)) for row in cursor]


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        address = f"file:{quote(str(path.resolve()))}?mode={mode}"
        # Held by one thread, and asked by the one that writes.
        return sqlite3.connect(address, uri=True, timeout=5, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise BackupProblem(f"{path} cannot be opened: {error}.") from error


def _is_copy(file: Path, database: Path) -> bool:
    """Whether a file is an earlier copy: a database, of nobody who has it open, and not the one to be copied."""
    if not file.is_file() or file.samefile(database) or Path(f"{file}-wal").exists():
        return False
    with file.open("rb") as opened:
        return opened.read(len(_MAGIC)) == _MAGIC


def _check_whole(raw: sqlite3.Connection, path: Path) -> None:
    said = raw.execute("PRAGMA integrity_check").fetchone()[0]
    if said != "ok":
        raise BackupProblem(f"{path} is damaged: {said}.")


def _in_use(database: Path) -> BackupProblem:
    return BackupProblem(f"{database} is in use. Stop the service and `keyrack git-host` first. Nothing was changed.")
