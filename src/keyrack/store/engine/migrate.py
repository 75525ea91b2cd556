"""Migrates a database's tables to the schema of this version, in one transaction; must never leave half of it."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from keyrack.store.changes import changes
from keyrack.store.engine import altered, catalogue, skipped
from keyrack.store.engine.connect import (
    DatabaseAltered,
    DatabaseRefused,
    is_unavailable,
    migrating_engine,
    parse_url,
    postgresql_engine,
    sqlite_engine,
    unavailable,
)

FOLDER = Path(__file__).parent.parent / "migrations"

_LOCK = 0x6B6579_6D6967  # the advisory lock of migrations
LOCK_SECONDS = 30
"""How long a migration waits for the lock of a table in use; all other sessions queue behind it meanwhile."""


class SchemaTooNew(RuntimeError):
    """The database was migrated by a later version than this one."""


def head() -> str:
    """The schema revision that this version works with."""
    return _chain(FOLDER)[-1]


def current(url: str) -> str | None:
    """The revision a database is at; None for an empty one, and where there is none. Raises DatabaseUnavailable, of
    which DatabaseAltered is one that has tables and does not say at which revision.
    """
    dialect, parsed = parse_url(url)
    if dialect == "sqlite" and not os.path.exists(str(parsed.database)):
        return None  # SQLite would make the file
    with _connected(url, writer=False) as conn:
        return _revision(conn)


def knows(at_revision: str | None, revision: str) -> bool:
    """Whether a database at this revision contains `revision`; one of a later version does."""
    chain = _chain(FOLDER)
    if at_revision is None or at_revision not in chain:
        return at_revision is not None
    return revision in chain[: chain.index(at_revision) + 1]


def upgrade(url: str, to: str = "head", then: Callable[[Connection], None] | None = None) -> None:
    """Migrate an empty or older database to a revision, in one transaction; does nothing if it is there already.

    then: called in the same transaction if anything was migrated. Any number of processes may call this at the same
    time: one migrates, the others wait. Raises SchemaTooNew; DatabaseUnavailable if the database is away or somebody
    keeps a table locked; DatabaseAltered if something of this revision is missing, as it is not made again silently.
    """
    dialect, parsed = parse_url(url)
    at_revision = None
    if dialect != "sqlite" or os.path.exists(str(parsed.database)):
        with _connected(url, writer=False) as conn:
            at_revision = _revision(conn)
            if missing := catalogue.missing(conn, head()) if at_revision == head() else ():
                raise DatabaseAltered(altered.in_words(missing))
    if at_revision is not None and at_revision not in _chain(FOLDER):
        raise SchemaTooNew(
            f"This database is at revision {at_revision}, made by a later version of Keyrack than this one, "
            f"which knows {head()} at most. Start that version, or restore a backup from before."
        )
    if at_revision == (head() if to == "head" else to):
        return
    with _connected(url, writer=True) as conn:
        if conn.dialect.name == "sqlite":
            # To change a table may mean to rebuild it; dropping the old one would delete the rows that refer to it.
            _switch_off_foreign_keys(conn)
        with conn.begin():
            _lock(conn)
            there = _revision(conn)
            if there is None:
                _check_fit(conn)
            with _in_words(there):
                for revision in _skipped(conn, there):
                    _run_alone(conn, revision)
                _run(conn, to)
            if then is not None and there != _revision(conn):
                then(conn)
            if conn.dialect.name == "sqlite" and conn.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise RuntimeError("The migration left rows that point to nothing; it was undone.")


@functools.cache
def _chain(folder: Path) -> tuple[str, ...]:
    """The revisions of a folder, oldest first, as their files name them; no file is imported."""
    after: dict[str | None, str] = {}
    for file in folder.glob("*.py"):
        text = file.read_text("utf-8")
        named = re.search(r'^revision = "(\w+)"$', text, re.MULTILINE)
        follows = re.search(r'^down_revision = (?:None|"(\w+)")$', text, re.MULTILINE)
        if named and follows:
            assert follows[1] not in after, f"two migrations follow {follows[1]}"
            after[follows[1]] = named[1]
    chain: list[str] = []
    while (following := after.pop(chain[-1] if chain else None, None)) is not None:
        chain.append(following)
    assert chain, f"no migration in {folder}"
    assert not after, f"migrations that follow none: {after}"
    return tuple(chain)


@functools.cache
def _scripts(folder: Path) -> Any:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(folder, version_locations=[folder])
    scripts.get_current_head()  # reads all files now, as it is not safe for two threads
    return scripts


def _revision(conn: Connection) -> str | None:
    revisions = catalogue.revisions(conn) if conn.dialect.has_table(conn, catalogue.REVISION) else []
    if len(revisions) == 1:
        return revisions[0]
    if revisions or catalogue.is_begun(conn):
        shown = f"has {len(revisions)} rows ({', '.join(revisions[:5])})" if revisions else "is missing or empty"
        raise DatabaseAltered(
            f"The table {catalogue.REVISION} in the database {shown}, which must have one row, and Keyrack's tables "
            f"are there: somebody else changed it. Nothing was done. Put its row back (this version's is {head()}), "
            "or restore a backup."
        )
    return None


@contextmanager
def _in_words(there: str | None) -> Iterator[None]:
    """Raise DatabaseAltered for tables that exist already: the database does not have the revision that it names."""
    try:
        yield
    except DBAPIError as error:
        if not altered.is_there_already(error):
            raise
        if there is None:
            reason = str(error.orig).strip().partition("\n")[0]
            raise DatabaseAltered(
                f"The database has tables of somebody else's with names that Keyrack needs ({reason}). "
                "Nothing was done. Give Keyrack a database of its own."
            ) from error
        raise DatabaseAltered(
            f"The database says that it is at revision {there}, and has tables or columns of a later one: somebody "
            f"else changed its table {catalogue.REVISION}. Nothing was done. Put its row back, or restore a backup."
        ) from error


def _run(conn: Connection, to: str) -> None:
    """Run the migrations as the alembic command does, without its ini file and env.py."""
    # Imported here, as it takes a tenth of a second, and there is nearly always nothing to migrate.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    scripts = _scripts(FOLDER)

    def steps(revision: Any, _context: object) -> Any:
        return scripts._upgrade_revs(to, revision)

    with EnvironmentContext(Config(), scripts, fn=steps, destination_rev=to) as environment:
        # The metadata gives its naming convention to constraints that a migration leaves unnamed.
        environment.configure(connection=conn, target_metadata=changes.metadata)
        environment.run_migrations()


def _skipped(conn: Connection, at_revision: str | None) -> tuple[str, ...]:
    """Revisions that an older database never got. At the newest revision nothing is skipped: somebody removed it."""
    chain = _chain(FOLDER)
    return skipped.among(conn, chain[: chain.index(at_revision) + 1]) if at_revision in chain else ()


def _run_alone(conn: Connection, revision: str) -> None:
    """Run the migration of one revision that is below the database's own."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(conn, opts={"target_metadata": changes.metadata})
    with Operations.context(context):
        _scripts(FOLDER).get_revision(revision).module.upgrade()


def _lock(conn: Connection) -> None:
    """One migration at a time. On SQLite the transaction itself began with the write lock."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        conn.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")


def _check_fit(conn: Connection) -> None:
    """Raise DatabaseRefused if the tables must not be made in this empty database."""
    if conn.dialect.name == "postgresql":
        from keyrack.store.engine import postgresql_session

        if problem := postgresql_session.unfit(conn):
            raise DatabaseRefused(problem)


def _switch_off_foreign_keys(conn: Connection) -> None:
    """On the driver's connection: SQLAlchemy would begin a transaction, inside which SQLite ignores it."""
    raw: Any = conn.connection.driver_connection
    raw.execute("PRAGMA foreign_keys = OFF")


@contextmanager
def _connected(url: str, *, writer: bool) -> Iterator[Connection]:
    dialect, parsed = parse_url(url)
    engine: Engine
    if dialect == "sqlite":
        engine = sqlite_engine(parsed, writer=writer)
    else:
        engine = migrating_engine(parsed) if writer else postgresql_engine(parsed, writer=False)
    try:
        with engine.connect() as conn:
            yield conn
    except Exception as error:
        if is_unavailable(error):
            raise unavailable(error) from error
        raise
    finally:
        engine.dispose()
