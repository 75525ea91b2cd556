"""Backups of an SQLite database: copies it while it is in use, checks copies, and puts one in its place; must open no
file of a database in use except through SQLite.
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
    # A source that was removed since would bring back its keys.
    "key_sources": ("id",),
}
# Columns that may have been narrowed since the backup; their latest values count.
NARROWED: Mapping[str, tuple[str, ...]] = {
    "users": ("role", "policies", "password_hash", "disabled_at"),
    "tokens": ("revoked_at",),
    "access_keys": ("active",),
}
REFUSING = ("revocations", "revoked_keys", "expired_keys")

Row = tuple[object, ...]

LEFT_SECONDS = 86_400
# Errors that keep SQLite from opening a database that need not be damaged.
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
    # A name of its own, as another backup to the same file may be running.
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
        with suppress(OSError):  # errors of the disk were raised above
            partial.unlink()


def _forget_killed(target: Path) -> None:
    """Delete partial copies to this target whose process was killed; those of the last day may still be written."""
    left = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.partial(-journal)?")
    with suppress(OSError):
        for one in target.parent.iterdir():
            if left.fullmatch(one.name) and one.stat().st_mtime < time.time() - LEFT_SECONDS:
                one.unlink()


def check(file: Path, database: Path) -> None:
    """Raise BackupProblem for a file that is no intact database of Keyrack, or is the one to be replaced."""
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
    """Copy a backup into a new file (0600), with the log beside it, which a copy made by other means may have.

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
    # SQLite does not say which of the two files it means.
    return BackupProblem(
        f"{source} cannot be copied to {target.parent}: {error}. Look at the rights of both, and room and state of "
        "their disks."
    )


@contextmanager
def alone_with(database: Path) -> Iterator[sqlite3.Connection | None]:
    """Hold a database that nobody else has open, as one file without a log; None where there is none, or a damaged one.

    Raises BackupProblem while a service, `git-host` or another command has it open, and where only permissions or the
    disk keep it from being read: it records what was revoked since the backup, which would come back unnoticed.
    """
    if not database.exists():
        yield None
        return
    raw = _connect(database, "rw")
    try:
        try:
            # This works only while nobody else has the database open.
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
            mode = ""  # it is damaged, which may be why somebody restores
        if mode == "wal":
            raise _in_use(database)
        yield raw if mode else None
    finally:
        raw.close()


def put_in_place(prepared: Path, database: Path, aside: Path) -> None:
    """Put the prepared database in place, and keep the old one aside; the log of a damaged one is moved with it.

    Whenever this is killed, one of the two is in place and whole: without a file there the database would look lost.
    """
    for ending in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.rename(f"{database}{ending}", f"{aside}{ending}")
    with suppress(FileNotFoundError):
        os.link(database, aside)
    os.rename(prepared, database)
    sync(database.parent)


def settle(file: Path) -> None:
    """Make a database that nobody has open one file without a log, and sync it. Raises BackupProblem."""
    try:
        with closing(_connect(file, "rw")) as raw:
            raw.execute("PRAGMA journal_mode = DELETE")
        sync(file)
    except sqlite3.Error as error:
        raise BackupProblem(f"{file} cannot be written: {error}. Nothing was changed.") from error


class Newer:
    """The database that a backup replaces: it is the newer one, and tells what was revoked since the backup."""

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def version(self) -> str:
        """The revision of its tables."""
        return str(self._raw.execute("SELECT version_num FROM alembic_version").fetchone()[0])

    def has_event(self, event_id: int, at: int, summary: str) -> bool:
        """Whether it has this event, so that both were once the same database."""
        event = self._raw.execute("SELECT at, summary FROM events WHERE id = ?", (event_id,)).fetchone()
        return bool(event == (at, summary))

    def count_after(self, table: str, highest: int) -> int:
        """How many rows it has with a higher id."""
        return int(self._raw.execute(f"SELECT count(*) FROM {table} WHERE id > ?", (highest,)).fetchone()[0])  # noqa: S608

    def names(self, table: str, columns: Iterable[str]) -> set[Row]:
        """The values of these columns in all rows."""
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
    """Whether a file is an earlier copy: a database that nobody has open, and not the one to be copied."""
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
