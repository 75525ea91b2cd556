"""Brings a database's tables to the form this version expects; must never be undone or run halfway."""

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

_ONE_AT_A_TIME = 0x6B6579_6D6967
LOCK_SECONDS = 30
"""How long a migration waits for a table that somebody is using, while all others queue behind it."""


class SchemaTooNew(RuntimeError):
    """The database was brought up by a later version than this one."""


def head() -> str:
    """The revision this version works with."""
    return _chain(FOLDER)[-1]


def current(url: str) -> str | None:
    """The revision a database is at; None for an empty one, and where there is none. Raises DatabaseUnavailable, of
    which DatabaseAltered is one that has tables and does not say at which revision.
    """
    dialect, parsed = parse_url(url)
    if dialect == "sqlite" and not os.path.exists(str(parsed.database)):
        return None  # a look must not make it
    with _connected(url, writer=False) as conn:
        return _revision(conn)


def knows(at_revision: str | None, revision: str) -> bool:
    """Whether a database at this revision has what `revision` brought; one of a later version has."""
    chain = _chain(FOLDER)
    if at_revision is None or at_revision not in chain:
        return at_revision is not None
    return revision in chain[: chain.index(at_revision) + 1]


def upgrade(url: str, to: str = "head", then: Callable[[Connection], None] | None = None) -> None:
    """Bring an empty or older database to a revision, in one transaction; does nothing when it is there.

    then: what else belongs to it, called in the same transaction where there was anything to do.
    Any number of processes may try at once: one does it, the others wait. Raises SchemaTooNew, and
    DatabaseUnavailable if the database is away or somebody holds on to a table; DatabaseAltered where something is
    missing that this revision has, as nothing is made anew in silence.
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
            # Changing a table may mean to rebuild it, and dropping the old one takes along what points to it.
            _let_go_of_foreign_keys(conn)
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
    """The revisions of a folder, oldest first, as their files name them; none is run for that."""
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
    scripts.get_current_head()  # all is read now, before another thread sees it
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
    """A database that has what a later migration makes says a revision that is not its own."""
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
    """What alembic's own command does, without its ini file and env.py."""
    # Loaded here, as it takes a tenth of a second, and a command nearly always finds that there is nothing to do.
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
    """Only of a database that is brought up: what is missing at the newest revision was taken away by somebody."""
    chain = _chain(FOLDER)
    return skipped.among(conn, chain[: chain.index(at_revision) + 1]) if at_revision in chain else ()


def _run_alone(conn: Connection, revision: str) -> None:
    """What a revision below the one that a database is at would have done, had it been there then."""
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(conn, opts={"target_metadata": changes.metadata})
    with Operations.context(context):
        _scripts(FOLDER).get_revision(revision).module.upgrade()


def _lock(conn: Connection) -> None:
    """One migration at a time. On SQLite the transaction itself began with the write lock."""
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_ONE_AT_A_TIME,))
        conn.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")


def _check_fit(conn: Connection) -> None:
    """Raises DatabaseRefused for an empty database in which the tables must not be made."""
    if conn.dialect.name == "postgresql":
        from keyrack.store.engine import postgresql_session

        if problem := postgresql_session.unfit(conn):
            raise DatabaseRefused(problem)


def _let_go_of_foreign_keys(conn: Connection) -> None:
    """Beside SQLAlchemy, which would begin a transaction, in which SQLite ignores it."""
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
