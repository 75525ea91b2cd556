"""The database as the layers above use it: read, write, listen; must know no table but `changes`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from sqlalchemy import Connection
from sqlalchemy.engine import URL

from keyrack.store.changes import announce
from keyrack.store.engine import altered, catalogue, fibers, migrate
from keyrack.store.engine.connect import (
    DatabaseAltered,
    DatabaseUnavailable,
    DatabaseUnusable,
    Dialect,
    answer,
    is_damage,
    is_no_text,
    parse_url,
    sqlite_engine,
)
from keyrack.store.engine.group_commit import Prefetch, lock_workspace
from keyrack.store.engine.nonblocking import NonblockingReader, TooSlow, WouldBlock
from keyrack.store.engine.outage import Outage
from keyrack.store.engine.pool import Pool
from keyrack.store.engine.sqlite_commands import LentTransaction
from keyrack.store.engine.sqlite_file import SqliteFile
from keyrack.store.engine.sqlite_writer import SqliteWriter
from keyrack.store.sealing import access_tree
from keyrack.store.sealing.seals import AlteredRow, Seals, attach_to_engine

if TYPE_CHECKING:
    from keyrack.store.engine.postgresql_reader import PostgresqlReader
    from keyrack.store.engine.postgresql_writer import PostgresqlWriter

__all__ = [
    "Database",
    "DatabaseUnavailable",
    "LentTransaction",
    "Prefetch",
    "TooSlow",
    "WouldBlock",
    "announce",
    "lock_workspace",
]

T = TypeVar("T")
Question = Callable[[Connection], T]
Listener = Callable[[frozenset[int]], None]

log = logging.getLogger(__name__)

READERS = 12
"""Connections of a process that read SQLite."""


class Commits:
    """Whether a call has committed anything, so that its answer does not say "nothing was changed" when it has."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made = False


commits: ContextVar[Commits | None] = ContextVar("commits", default=None)
"""The Commits of the call that runs in this context; set by whoever begins a call."""


class OnPostgresql(NamedTuple):
    """How many connections a process opens at most, for threads and for fibers. With two more, for NOTIFY and LISTEN,
    four processes stay below PostgreSQL's usual 100.
    """

    readers: tuple[int, int] = (6, 8)
    writers: tuple[int, int] = (5, 3)


ON_POSTGRESQL = OnPostgresql()
POOL_TIMEOUT_SECONDS = 30
"""How long a thread waits for a free connection of a pool."""


class Database:
    """One open database. All methods may be called from any thread; an event loop's own thread must only call them
    inside nonblocking(), or in a fiber.
    """

    def __init__(self, url: URL, dialect: Dialect) -> None:
        self.dialect: Dialect = dialect
        self.seals = Seals()
        self._on_altered: Callable[[tuple[AlteredRow, ...]], None] | None = None
        self._telling = threading.local()
        self._lock = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        self._closed = False
        self._outage = Outage()
        self._no_changes = Outage("The database takes changes")
        self._takes_changes = False
        self._file: SqliteFile | None = None
        self._nonblocking: NonblockingReader | None = None
        self._transaction: LentTransaction | None = None  # of the thread that is inside nonblocking()
        self._readers: Pool | PostgresqlReader
        self._writer: SqliteWriter | PostgresqlWriter
        if dialect == "sqlite":
            self._file = SqliteFile(str(url.database))
            engine = sqlite_engine(url, writer=False, file=self._file)
            writing = sqlite_engine(url, writer=True, file=self._file)
            attach_to_engine(writing, self.seals)
            self._writer = SqliteWriter(writing, self._file, self._deliver)
            attach_to_engine(engine, self.seals)
            self._nonblocking = NonblockingReader(engine)
            # A pool of their own, so that writes that wait for a row keep no reads waiting.
            self._readers = Pool(engine, READERS, POOL_TIMEOUT_SECONDS)
        else:
            # Imported here, as the driver takes a while to load and commands on SQLite do without it.
            from keyrack.store.engine.postgresql_reader import PostgresqlReader
            from keyrack.store.engine.postgresql_writer import PostgresqlWriter

            self._readers = PostgresqlReader(url, *ON_POSTGRESQL.readers, POOL_TIMEOUT_SECONDS, self.seals)
            self._writer = PostgresqlWriter(
                url, *ON_POSTGRESQL.writers, POOL_TIMEOUT_SECONDS, self._deliver, self.seals
            )

    @classmethod
    def open(cls, url: str) -> Database:
        """A database by its address (see connect.parse_url, ValueError included); connects to nothing yet."""
        dialect, parsed = parse_url(url)
        return cls(parsed, dialect)

    def read(self, question: Question[T]) -> T:
        """Ask in one read transaction, which sees the database as it is at one instant and cannot write.

        The question may be asked a second time if the connection broke. Raises DatabaseUnavailable.
        """
        reader = self._nonblocking
        if reader is not None:
            if reader.is_here:
                return self._ask_nonblocking(reader, question)
            reader.prepare()
        try:
            return self._answer(lambda: self._ask(question), again=True)
        finally:
            self._tell_broken()

    @property
    def waits_in_fibers(self) -> bool:
        """Whether the event loop runs other calls while one waits in a fiber (store/engine/fibers.py)."""
        return self.dialect == "postgresql"

    def prepare_nonblocking(self) -> None:
        """Open the connection for nonblocking() now; else its first caller gets WouldBlock. Called by a thread that may
        wait. Raises DatabaseUnavailable.
        """
        if self._nonblocking is not None:
            self._answer(self._nonblocking.open, again=False)

    @contextmanager
    def nonblocking(
        self, transaction: LentTransaction | None = None, later: Callable[[Callable[[], None]], object] | None = None
    ) -> Iterator[None]:
        """Inside this block the calling thread may read without ever waiting: for an event loop's own thread.

        All reads see one instant. Raises WouldBlock, also inside the block, where it would have to wait, where a read
        takes more than a few milliseconds, where anything is written, where the seal of a row does not hold, and always
        on PostgreSQL. Nothing was changed then, and a thread that may wait can run the same again.
        transaction: a lent one, in which this thread may write; its writes are on the disk once that is committed.
        later: as for answer_nonblocking.
        """
        reader = self._nonblocking
        if reader is None:
            raise WouldBlock("the database is elsewhere")
        reader.begin(anew=later is None)
        try:
            if transaction is None:
                yield
                return
            transaction.begin_call()
            self._transaction = transaction
            try:
                yield
            except WouldBlock:
                transaction.undo_call()
                raise
            finally:
                self._transaction = None
                transaction.end_call()
        finally:
            reader.end(later)

    def answer_nonblocking(
        self, call: Callable[[], T], later: Callable[[Callable[[], None]], object] | None = None
    ) -> T:
        """Run a call as inside nonblocking(), and answer its result.

        later: an event loop's call_soon. All reads in one round of the loop then share one snapshot, which is newer
        than each of the calls: to begin another one takes as long as many a call.
        """
        if self._nonblocking is None:
            raise WouldBlock("the database is elsewhere")
        self._nonblocking.begin()
        try:
            return call()
        finally:
            self._nonblocking.end(later)

    def lend_transaction(self, transaction: LentTransaction) -> None:
        """Have a transaction begun and lent as soon as nothing else is written; returns at once.

        Raises WouldBlock on PostgreSQL, and where the database is closed.
        """
        if not isinstance(self._writer, SqliteWriter) or self._closed:
            raise WouldBlock("nothing is lent")
        transaction.add_done_callback(self._note_commit)
        self._writer.lend_transaction(transaction)

    def _ask_nonblocking(self, reader: NonblockingReader, question: Question[T]) -> T:
        if self._closed or (self._file is not None and self._file.problem is not None):
            raise WouldBlock("there are words for that")
        transaction = self._transaction
        if transaction is None or not transaction.wrote:
            result = reader.read(lambda conn: _begun(conn, question))
        else:
            # What was written is not seen by the other connection before the commit.
            result = transaction.run(question)
        if self.seals.unreported:
            raise WouldBlock("an alarm is to be written")
        self._outage.answered()
        return result

    def write(
        self,
        command: Question[T],
        *,
        workspace_lock: int | None = None,
        prefetch: Prefetch | None = None,
        defers_tree: bool = False,
    ) -> T:
        """Run a command in one transaction; returns its result once the commit is on the disk.

        Whatever the command raises reaches the caller, and then nothing of it stays. The command must do
        nothing but use the connection: it runs again when PostgreSQL undid it for the sake of another one.
        It neither commits nor rolls back, and starts no other write. To survive an expected error, such as
        a duplicate, it uses ``with conn.begin_nested()``. Raises DatabaseUnavailable; if the connection
        broke during the commit itself, the change may have been made after all.

        workspace_lock: the id of a workspace whose lock the command takes: other commands that take it wait until this
        one ends. A command that decides by what it reads ("nothing else on this host lets the key in") needs it. On
        SQLite commands run one after another anyhow; on PostgreSQL they run side by side, and two that each see the
        other's key still in force would both leave it unrevoked. (Isolation level SERIALIZABLE prevents that too: under
        load it undid four commands out of five.)
        prefetch: its first question, which may be sent ahead where several commands are committed together.
        defers_tree: its changes to the tree may be written together with those of the commands that are committed with
        it (store/sealing/deferred_writes.py).
        """
        if self._nonblocking is not None and self._nonblocking.is_here:
            if self._transaction is None:
                raise WouldBlock("it must be durable")
            result = self._transaction.run(command, may_hold=prefetch is not None, defers_tree=defers_tree)
            if self.seals.unreported:
                raise WouldBlock("an alarm is to be written")
            return result
        fiber, noted = fibers.current(), commits.get()
        try:
            result = self._answer(
                lambda: self._writer.run(command, workspace_lock, prefetch, defers_tree),
                again=False,
                changes=True,
            )
            if fiber is not None:
                fiber.wrote = True
            if noted is not None:
                noted.made = True
        finally:
            self._tell_broken()
        return result

    @property
    def can_write_now(self) -> bool:
        """Whether a command would begin at once. On PostgreSQL commands that wait for a workspace's lock hold their
        connections, so what is not urgent should be written later instead of waiting for a free one.
        """
        return self._writer.is_free

    def check(self) -> None:
        """Check that no table is missing and, unless the last write succeeded, that it takes changes: a full disk and a
        standby still answer reads. Raises DatabaseUnavailable; its subclass DatabaseAltered names what is missing.
        """
        if missing := self.read(lambda conn: catalogue.missing(conn, migrate.head())):
            raise DatabaseAltered(altered.in_words(missing))
        if not self._takes_changes:
            self.write(lambda conn: conn.exec_driver_sql("UPDATE alembic_version SET version_num = version_num"))

    def lossy_settings(self) -> tuple[str, ...]:
        """The settings of PostgreSQL's server with which a crash of its machine may lose acknowledged changes; none on
        SQLite, as each connection sets what matters. Raises DatabaseUnavailable.
        """
        if self.dialect == "sqlite":
            return ()
        from keyrack.store.engine import postgresql_session

        return self.read(postgresql_session.lossy)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have listener called with the ids of servers that changed, after each commit, by whichever process.

        It is called in one of our threads and must return at once. Changes close in time come together; one
        may come twice; one may be lost for good when its process dies, so waiting callers should also ask now and then.
        Returns the function that ends this. Raises DatabaseUnavailable on SQLite only.
        """
        self._check_open()
        with self._lock:
            answer(self._writer.watch, again=False)
            self._listeners += (listener,)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(other for other in self._listeners if other is not listener)

        return stop

    def seal_with(
        self, mac: Callable[[bytes], bytes], on_altered: Callable[[tuple[AlteredRow, ...]], None] | None = None
    ) -> None:
        """Seal and check rows with this keyed function.

        on_altered: called, outside of any transaction, with rows that were read and that others changed.
        """
        self.seals.use(mac)
        self._on_altered = on_altered

    def close(self) -> None:
        """Finish the writes under way and end all threads and connections. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._writer.close()
        self._readers.close()
        if self._nonblocking is not None:
            self._nonblocking.close()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("The database is closed.")

    def _answer(self, ask: Callable[[], T], *, again: bool, changes: bool = False) -> T:
        """Ask, and note whether the database answered. Raises DatabaseUnusable at once where its file must not be used.

        changes: whether it is a write; whether writes succeed is noted separately.
        """
        self._check_open()
        self._check_file()
        try:
            whole = ask if self._file is None else lambda: self._with_any_text(ask)
            result = answer(whole, again=again, conflicts=True)
        except DatabaseUnavailable as error:
            self._check_file()  # the reason may have been found on the way
            if changes:
                self._note_no_changes(error)
            else:
                self._outage.failed(error)
            raise
        self._outage.answered()
        if changes:
            self._takes_changes = True
            self._no_changes.answered()
        return result

    def _note_commit(self, error: Exception | None) -> None:
        if isinstance(error, DatabaseUnavailable):
            self._note_no_changes(error)

    def _note_no_changes(self, error: DatabaseUnavailable) -> None:
        self._takes_changes = False
        self._no_changes.failed(error)

    def _with_any_text(self, ask: Callable[[], T]) -> T:
        """Ask, and ask again if a text that others wrote could not be read, as then nothing was done."""
        try:
            return ask()
        except Exception as error:  # each driver has its own class for it; any other error is raised
            if not is_no_text(error) or self._file is None or not self._file.read_any_text():
                raise
        return ask()

    def _tell_broken(self) -> None:
        """Call on_altered once for all rows that a question found. Questions that it asks itself call it no more."""
        if self._on_altered is None or getattr(self._telling, "now", False):
            return
        altered_rows = self.seals.take_unreported()
        if not altered_rows:
            return
        self._telling.now = True
        try:
            self._on_altered(altered_rows)
        finally:
            self._telling.now = False

    def _check_file(self) -> None:
        if self._file is not None and self._file.problem is not None:
            raise DatabaseUnusable(self._file.problem)

    def _ask(self, question: Question[T]) -> T:
        if not isinstance(self._readers, Pool):
            return self._readers.ask(question)
        with self._readers.connection() as conn:
            try:
                with conn.begin():
                    return _begun(conn, question)
            except Exception as error:
                # Before the connection is closed, which may write.
                if self._file is not None and is_damage(error):
                    self._file.mark_damaged(getattr(error, "orig", error))
                raise

    def _deliver(self, server_ids: frozenset[int]) -> None:
        for listener in self._listeners:
            try:
                listener(server_ids)
            except Exception:  # the change is committed; the others are told of it all the same
                log.exception("A listener failed; the others are told all the same.")


def _begun(conn: Connection, question: Question[T]) -> T:
    access_tree.begin(conn, reads=True)
    return question(conn)
