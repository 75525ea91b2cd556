"""Makes engines and connections, set up for durability, from a database's address; must hold no question."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from sqlalchemy import Connection, Engine, NullPool, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, PendingRollbackError
from sqlalchemy.util import LRUCache

from keyrack.store.engine import altered, sqlite_types
from keyrack.store.engine.sqlite_file import BUSY_SECONDS, SqliteFile, Unusable
from keyrack.store.tables.columns import as_json

if TYPE_CHECKING:
    # Loaded where PostgreSQL is spoken to: an operator's command on SQLite would wait for it.
    import psycopg

T = TypeVar("T")
Dialect = Literal["sqlite", "postgresql"]

# Errors of PostgreSQL for which trying again does not help, unlike those of a server that starts or is full.
_REFUSED = re.compile(
    r"FATAL:\s+(.*(?:does not exist|authentication failed.*|no pg_hba\.conf entry.*|not permitted to log in"
    r"|permission denied for database.*))"
)
_PORT = 5432
_STATEMENTS = 1000  # compiled statements that are kept
_SEVERAL_HOSTS = re.compile(r"(postgres(?:ql)?(?:\+\w+)?://(?:[^@/?]*@)?)([^@/?]+,[^@/?]+)(/.*)?")

# serialization_failure and deadlock_detected: docs "PostgreSQL Error Codes".
_CONFLICTS = ("40001", "40P01")
# read_only_sql_transaction: a standby, or a database that is set so for a while.
_READ_ONLY = "25006"
# insufficient_privilege: our role may not do it, which is no fault of the caller.
_FORBIDDEN = "42501"
# idle_in_transaction_session_timeout, transaction_timeout: set by the role or server to less than a command takes.
_TIMED_OUT = ("25P03", "25P04")
# lock_not_available: see postgresql_session.LOCK_SECONDS.
_LOCKED = "55P03"
# data_corrupted, index_corrupted: the server's own files.
_DAMAGED = ("XX001", "XX002")
# untranslatable_character: a text that the database's encoding does not have.
_NO_SUCH_CHARACTER = "22P05"
_DISK_FULL = "53100"

UNAVAILABLE = "The database does not answer as it should: "


class DatabaseUnavailable(RuntimeError):
    """The database does not answer, is full, or the connection broke; nothing was acknowledged. Try again later."""

    in_doubt = False
    """Whether a commit was under way, so that the change may have been made after all."""


class DatabaseFull(DatabaseUnavailable):
    """The database's disk is full; only room on it helps."""


class DatabaseUnusable(DatabaseUnavailable):
    """The database file is damaged, or no longer the one that was opened; waiting does not help."""


class DatabaseAltered(DatabaseUnavailable):
    """The tables are not as Keyrack made them, or a write did not happen though the database took it."""


class TablesChanged(DatabaseAltered):
    """A table or column that is asked for is not there: asking again does not help before an operator put it back."""


class DatabaseRefused(DatabaseUnavailable):
    """The database server answers and refuses this database, role or password; waiting does not help."""


class CommitInDoubt(Exception):
    """The connection broke during the commit: running the command again could do it twice."""


def parse_url(url: str) -> tuple[Dialect, URL]:
    """A database's address with the driver we use; ValueError with words for anything we cannot serve.

    url: ``sqlite:////absolute/path/keyrack.db`` or ``postgresql://user@host/name`` (``postgres://`` too), also with
    several hosts, each with its port, as libpq has it: ``postgresql://user@db-1:5432,db-2:5432/name``.
    """
    try:
        parsed = _with_hosts(url)
    except (ArgumentError, ValueError) as error:
        raise ValueError(
            "The database address cannot be read. Write sqlite:////path/keyrack.db or postgresql://user@host/name."
        ) from error
    # With a second "@" part of the password is taken for the host, which errors would show.
    if "@" in (parsed.host or ""):
        raise ValueError('There are two "@" in the database address. Write one in a name or a password as %40.')
    kind = parsed.drivername.partition("+")[0]
    if kind in ("postgresql", "postgres"):
        return "postgresql", parsed.set(drivername="postgresql+psycopg")
    if kind != "sqlite":
        raise ValueError(f'"{kind}" is not a database Keyrack works with. Use sqlite: or postgresql:.')
    if parsed.database in (None, "", ":memory:") or "mode=memory" in str(parsed):
        raise ValueError("SQLite needs a file, so that what was acknowledged survives: sqlite:////path/keyrack.db.")
    return "sqlite", parsed.set(drivername="sqlite+pysqlite")


def _with_hosts(url: str) -> URL:
    """The address as a URL of SQLAlchemy, which takes several hosts only as query parameters."""
    match = _SEVERAL_HOSTS.fullmatch(url)
    if match is None:
        return make_url(url)
    before, several, rest = match.groups()
    places = [make_url(f"postgresql://{one}") for one in several.split(",")]
    ports = ",".join(str(place.port or _PORT) for place in places)
    return make_url(before + (rest or "")).update_query_dict(
        {"host": ",".join(str(place.host) for place in places), "port": ports}
    )


def sqlite_engine(url: URL, *, writer: bool, file: SqliteFile | None = None) -> Engine:
    """An engine on one SQLite file; writer: its transactions begin with the write lock.

    A reader cannot write, and its transactions see one snapshot. file: shared by all engines of a process, so that all
    of them use the same file, also if another one takes its name.
    """
    opened = file or SqliteFile(str(url.database))
    begin = "BEGIN IMMEDIATE" if writer else "BEGIN"

    def connect() -> sqlite3.Connection:
        return _connect_sqlite(opened, writer=writer)

    dialect, statements = _sqlite_in_common()
    engine = Engine(
        NullPool(connect, dialect=dialect),  # type: ignore[arg-type]
        dialect,
        url,
        hide_parameters=True,  # an error's text ends up in logs, the values do not
        execution_options={"compiled_cache": statements},
    )

    # The driver begins no transactions (isolation_level None), so each is begun here; on the driver's connection, which
    # takes 5 microseconds where SQLAlchemy takes 40.
    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        cast(sqlite3.Connection, conn.connection.driver_connection).execute(begin)

    return engine


@cache
def _sqlite_in_common() -> tuple[Any, Any]:
    """What all SQLite engines of this process share: the dialect, and the cache of statements compiled for it.

    To compile a statement takes longer than to run it, and readers and the writer often run the same one. Neither
    depends on a file: the dialect looks at the library, once, by a database in memory.
    """
    with create_engine("sqlite://", poolclass=NullPool, json_deserializer=as_json).connect() as conn:
        sqlite_types.use(conn.dialect)
        return conn.dialect, LRUCache(_STATEMENTS)


def _connect_sqlite(file: SqliteFile, *, writer: bool) -> sqlite3.Connection:
    raw = file.connect()
    try:
        _write_ahead(raw)
        # FULL syncs the log at each commit; NORMAL, WAL's usual companion, may lose the last ones.
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("PRAGMA foreign_keys = ON")
        raw.execute("PRAGMA journal_size_limit = 67108864")
        # Else the journal that undoes a statement is a file in the temporary folder, which may be full.
        raw.execute("PRAGMA temp_store = MEMORY")
        if not writer:
            raw.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        raw.close()
        raise
    return raw


def _write_ahead(raw: sqlite3.Connection) -> None:
    """Set the file to write-ahead logging. Of a new file only one connection at a time can do so, and the others get
    SQLITE_BUSY immediately, whatever their timeout: so the wait is done here.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            raw.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # The lower byte is the primary code, the rest its extension (SQLITE_BUSY_RECOVERY and others).
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def postgresql_engine(url: URL, *, writer: bool, json_as_text: bool = False) -> Engine:
    """An engine on PostgreSQL; writer: whose commits are on the disk when they return.

    json_as_text: the driver returns JSON as text, which columns.Json parses only where it is read.

    A reader cannot write, and its transactions see one snapshot. Each statement of a writer sees what others have
    committed until then (READ COMMITTED).
    """
    dialect, statements = _postgresql_in_common(json_as_text)
    arguments, named = dialect.create_connect_args(url)
    named |= _postgresql_arguments()

    def connect() -> psycopg.Connection[Any]:
        return _connect_postgresql(arguments, named, writer=writer)

    return Engine(
        NullPool(connect, dialect=dialect),  # type: ignore[arg-type]
        dialect,
        url,
        hide_parameters=True,
        execution_options={"compiled_cache": statements},
    )


def migrating_engine(url: URL) -> Engine:
    """An engine on PostgreSQL for migrations, for which SQLAlchemy asks the server for its version and features."""
    engine = create_engine(url, hide_parameters=True, poolclass=NullPool)

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: object, _record: object, arguments: Any, named: Any) -> psycopg.Connection[Any]:
        return _connect_postgresql(arguments, named | _postgresql_arguments(), writer=True, patient=True)

    return engine


@cache
def _postgresql_in_common(json_as_text: bool) -> tuple[Any, Any]:
    """What all PostgreSQL engines of this process share, as _sqlite_in_common.

    No server is asked, as our statements are the same for every version: otherwise SQLAlchemy asks half a dozen things
    on the first connection of each engine.
    """
    dialect: Any = create_engine("postgresql+psycopg://").dialect
    if json_as_text:
        from psycopg.types.string import TextLoader

        for kind in ("json", "jsonb"):
            dialect._psycopg_adapters_map.register_loader(kind, TextLoader)  # no Python call for each value
    dialect._backslash_escapes = False  # see standard_conforming_strings in postgresql_session
    return dialect, LRUCache(_STATEMENTS)


def _connect_postgresql(arguments: Any, named: Any, *, writer: bool, patient: bool = False) -> psycopg.Connection[Any]:
    import psycopg

    from keyrack.store.engine import postgresql_session
    from keyrack.store.engine.pipeline import PipelinedConnection

    raw = PipelinedConnection.connect(*arguments, **named)
    raw.patient = patient
    if not postgresql_session.begin(raw, writer=writer, patient=patient):
        raw.close()
        raise DatabaseRefused(postgresql_session.SHARED)
    if not writer:
        raw.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        raw.read_only = True
    return raw


def postgresql_connection(url: URL) -> psycopg.Connection[Any]:
    """A connection outside the pool and in autocommit, for NOTIFY, LISTEN and ANALYZE."""
    from keyrack.store.engine.silence import BoundedConnection

    arguments = {**url.translate_connect_args(username="user", database="dbname"), **url.query}
    return BoundedConnection.connect(**{**arguments, **_postgresql_arguments()}, autocommit=True)


def _postgresql_arguments() -> dict[str, Any]:
    """A network that carries nothing is given up after seconds; the system's default is a quarter of an hour."""
    return {
        "connect_timeout": 10,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "application_name": "keyrack",
        # Else text comes in the database's own encoding, and as bytes where that is SQL_ASCII.
        "client_encoding": "utf8",
        # psycopg must prepare nothing by itself: after a rollback it would send DEALLOCATE ALL, which also drops the
        # statements that pipeline.py prepared on the same connection.
        "prepare_threshold": None,
    }


def is_unavailable(error: Exception) -> bool:
    """Whether an error means that the database is away, locked, full or damaged, and not that a statement is wrong."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if is_damage(error) or altered.is_altered(error):
        return True
    if isinstance(cause, sqlite3.OperationalError):
        # SQLITE_ERROR is a wrong statement: a fault of ours, which must not be hidden.
        return getattr(cause, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR
    if not isinstance(error, DBAPIError) or is_conflict(error):
        return False
    if getattr(cause, "sqlstate", None) in (_READ_ONLY, _FORBIDDEN, _NO_SUCH_CHARACTER, *_TIMED_OUT, *_DAMAGED):
        return True
    # SQLAlchemy wraps a driver's error into one of its own with the same name.
    ours = isinstance(error, (OperationalError, InterfaceError)) and not isinstance(cause, sqlite3.Error)
    return error.connection_invalidated or ours


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite says that its file is damaged, or no database: waiting does not help."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None) if isinstance(cause, sqlite3.DatabaseError) else None
    if code is None:
        return False
    # A short read: the file is shorter than its header says.
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or code == sqlite3.SQLITE_IOERR_SHORT_READ


def is_locked(error: BaseException | None) -> bool:
    """Whether SQLite waited in vain (BUSY_SECONDS) for another process's transaction to end."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None) if isinstance(cause, sqlite3.OperationalError) else None
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


def is_no_text(error: BaseException | None) -> bool:
    """Whether Python's driver of SQLite read text that is not UTF-8, for which it fails the whole statement."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, sqlite3.OperationalError) and str(cause).startswith("Could not decode to UTF-8")


def is_conflict(error: Exception) -> bool:
    """Whether PostgreSQL undid the transaction because of another one (serialization failure, deadlock)."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _CONFLICTS


def answer(ask: Callable[[], T], *, again: bool, conflicts: bool = False) -> T:
    """What ask returns. Raises DatabaseUnavailable in our own words for errors that mean it.

    again: ask once more if the connection turns out to be broken; the second time it is a new one. conflicts: a
    conflict (is_conflict) means "unavailable" too, as no caller tries again: a command was tried often enough, and a
    standby cancels questions that keep it from following.
    """
    try:
        return ask()
    except CommitInDoubt as error:
        unknown = unavailable(error.__cause__ or error)
        # A server that says that its disk is full has undone the transaction.
        unknown.in_doubt = not isinstance(unknown, DatabaseFull)
        raise unknown from error
    except Exception as error:  # each driver has its own classes; an error of another kind is raised
        error = what_broke(error)  # the same name, which Python deletes afterwards: else a reference cycle
        undone = conflicts and is_conflict(error)
        if not (undone or is_unavailable(error)):
            raise
        if not (again and (undone or getattr(error, "connection_invalidated", False))):
            raise unavailable(error) from error
    return answer(ask, again=False, conflicts=conflicts)


def what_broke(error: Exception) -> Exception:
    """The error that broke a connection, where the clean-up after it raised only that it is broken."""
    first: BaseException | None = error
    while isinstance(first, PendingRollbackError):
        first = first.__context__
    return first if isinstance(first, DBAPIError) else error


def unavailable(error: BaseException) -> DatabaseUnavailable:
    """The error for callers, with the driver's first line as the reason."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, Unusable):
        return DatabaseUnusable(str(cause))
    reason = str(cause).strip().partition("\n")[0]
    if is_damage(error):
        return DatabaseUnusable(f"The database file is damaged ({reason}). Stop Keyrack and restore a backup.")
    if altered.is_altered(error):
        kind = TablesChanged if altered.is_lacking(error) else DatabaseAltered
        return kind(altered.words(error))
    if getattr(cause, "sqlstate", None) == _NO_SUCH_CHARACTER:
        return DatabaseRefused(f"The database cannot hold this text: {reason}. Copy it into one of the encoding UTF8.")
    if getattr(cause, "sqlstate", None) in _DAMAGED:
        return DatabaseUnusable(
            f"The database server says that its data are damaged: {reason}. Look into its log and at its disk; a "
            "damaged index is made anew by REINDEX, a damaged table comes from a backup."
        )
    if getattr(cause, "sqlstate", None) == _LOCKED:
        return DatabaseUnavailable(
            "Another session of the database holds a lock for which Keyrack waited in vain: pg_stat_activity and "
            "pg_locks show whose."
        )
    if is_locked(error):
        return DatabaseUnavailable(
            "Another program holds a lock on the database file for which Keyrack waited in vain, such as sqlite3 with "
            "a transaction left open: fuser and lsof show which have the file open."
        )
    refused = _REFUSED.search(str(getattr(error, "orig", None) or error))
    if getattr(cause, "sqlstate", None) == _FORBIDDEN:
        return DatabaseRefused(f"The database server answers and refuses: {reason}. Grant it to Keyrack's role.")
    if refused:
        return DatabaseRefused(f"The database server answers and refuses: {refused[1]}. Check --database.")
    codes = (getattr(cause, "sqlstate", None), getattr(cause, "sqlite_errorcode", None))
    if _DISK_FULL in codes or sqlite3.SQLITE_FULL in codes:
        return DatabaseFull(f"{UNAVAILABLE}{reason}")
    return DatabaseUnavailable(f"{UNAVAILABLE}{reason}")
