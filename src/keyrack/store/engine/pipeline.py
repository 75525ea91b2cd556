"""A connection to PostgreSQL that sends statements ahead of the answers; must know no statement.

psycopg sends a statement and waits for its answer, one after another. Each wait hands over between processes and, on
our side, between threads, which takes longer than most statements do. Here BEGIN is sent together with the first
statement of a transaction. A statement whose answer nobody needs yet is queued, and sent with the next statement that
is waited for, or with the commit. Statements are prepared in the server once for each connection. What is run through
psycopg's own methods, as SQLAlchemy does, works in between as it always does.
"""

from __future__ import annotations

import re
import select
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, cached_property
from operator import itemgetter
from typing import Any

import psycopg
from psycopg.abc import PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from keyrack.store.engine import fibers, silence
from keyrack.store.engine.fibers import Fiber
from keyrack.store.engine.silence import BoundedConnection

MAX_UNREAD = 256
"""Statements that are sent before their answers are read; until then the answers use memory, here or in the server."""
FULL_SECONDS = 0.001
"""How long a fiber waits before it tries again to send to a server that takes no more at the moment."""
MAX_PREPARED = 400
"""Statements that a connection keeps prepared; the server's process uses some ten kilobytes for each."""

# feature_not_supported, invalid_sql_statement_name
_UNSUPPORTED, _NO_SUCH_STATEMENT = b"0A000", b"26000"
_PLACE = re.compile(r"%\((\w+)\)s|%%")


class MoreThanOne(Exception):
    """A question was to be one statement, and asks a second one."""


class PendingResult:
    """The result of a statement that was sent; to look at it is to wait for it."""

    __slots__ = ("_pipeline", "result")

    def __init__(self, pipeline: _Pipeline) -> None:
        self._pipeline = pipeline
        self.result: PGresult | None = None

    @property
    def rowcount(self) -> int:
        """How many rows it changed or returned."""
        return self._come().command_tuples or 0

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows, as tuples."""
        return self._pipeline.rows(self._come())

    def fetchone(self) -> tuple[Any, ...] | None:
        """The first row, as a tuple."""
        return next(iter(self.fetchall()), None)

    def _come(self) -> PGresult:
        if self.result is None:
            self._pipeline.read()
        if self.result is None:
            raise psycopg.InternalError("The statement was not run, as one before it failed.")
        return self.result


class PipelinedConnection(BoundedConnection):
    """A psycopg connection that can also queue statements; for one thread or fiber at a time."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ahead = _Pipeline(self)  # apart, so that no name of it is one of psycopg's

    @property
    def written(self) -> int:
        """How many statements that may write were sent so far; each use of psycopg's own methods counts as one."""
        return self.ahead.written

    def ask(self, sql: str, values: Mapping[str, Any]) -> PendingResult:
        """Run a statement in a transaction, and wait for its result. sql: with placeholders as psycopg has them.

        Raises psycopg's errors, also those of statements that were queued before.
        """
        return self.ahead.ask(sql, values)

    def enqueue(self, sql: str, values: Mapping[str, Any]) -> PendingResult:
        """Queue a statement, to run before everything later on this connection, where its error is raised too."""
        return self.ahead.enqueue(sql, values)

    def send(self) -> None:
        """Send what was queued, as far as the system takes it without waiting."""
        self.ahead.send()

    def ask_together(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[tuple[Any, ...]]]:
        """The rows of statements that only read, sent together outside of any transaction: each has a snapshot of its
        own. Raises the error of the first that failed; the results of the others are lost then.
        """
        return self.ahead.ask_together(asked)

    def single_statement(self) -> AbstractContextManager[None]:
        """A block for one statement, which is its own transaction. A second one raises MoreThanOne."""
        return self.ahead.single_statement()

    def commit(self) -> None:
        """As psycopg's; after a transaction that could only read, the answer is not waited for."""
        if self.ahead.is_used:
            self.ahead.commit()
        else:
            super().commit()

    def close(self) -> None:
        """As psycopg's."""
        self.ahead.unwatch()
        super().close()

    def rollback(self) -> None:
        """As psycopg's."""
        if self.ahead.is_used:
            self.ahead.rollback()
        else:
            super().rollback()

    def wait(self, gen: PQGen[Any], *args: Any, **options: Any) -> Any:
        """As psycopg's own wait, by which its methods wait for the server; a fiber does not block its event loop."""
        self.ahead.leave()
        self.ahead.unwatch()  # or two threads would read
        ours = super().wait
        # Rare, so for a fiber a thread simply waits.
        return fibers.run_in_thread(lambda: ours(gen, *args, **options))


class _Pipeline:
    """The statements that were sent on a connection and not answered yet."""

    def __init__(self, raw: psycopg.Connection[Any]) -> None:
        self._raw = raw
        self._pgconn = raw.pgconn
        self._piped = False
        self._within = False
        self._sent: deque[PendingResult | None] = deque()  # None for a sync message
        self._open_ended = False
        self._prepared: OrderedDict[str, bytes] = OrderedDict()
        self._unsure: list[str] = []
        self._number = 0
        self.written = 0
        self._poll: select.poll | None = None
        self._watch: fibers.DescriptorWatch | None = None
        self._single_statement = self._spent = False

    @property
    def is_used(self) -> bool:
        """Whether the connection is in pipeline mode, in which psycopg's own methods do not work."""
        return self._piped and not self._raw.closed

    def ask(self, sql: str, values: Mapping[str, Any]) -> PendingResult:
        answer = self._send(sql, values)
        if self._single_statement:
            self._end()
        self.read()
        return answer

    def enqueue(self, sql: str, values: Mapping[str, Any]) -> PendingResult:
        answer = self._send(sql, values)
        if len(self._sent) >= MAX_UNREAD:
            self.read()
        return answer

    def send(self) -> None:
        if self._piped and self._sent:
            self._pgconn.flush()

    def ask_together(self, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[list[tuple[Any, ...]]]:
        answers = []
        self._single_statement = True
        try:
            for sql, values in asked:
                self._spent = False
                answers.append(self._send(sql, values))
        finally:
            self._single_statement = False
            self._end()
            self.read()
        return [answer.fetchall() for answer in answers]

    def rows(self, result: PGresult) -> list[tuple[Any, ...]]:
        """The rows of a result."""
        if not result.ntuples:
            return []
        transformer = self._transformer
        transformer.set_pgresult(result, set_loaders=True, format=0)
        rows: list[tuple[Any, ...]] = transformer.load_rows(0, result.ntuples, tuple)
        return rows

    @contextmanager
    def single_statement(self) -> Iterator[None]:
        self._single_statement, self._spent = True, False
        try:
            yield
        finally:
            self._single_statement = False

    def commit(self) -> None:
        if not self._within and not self._sent and not self._open_ended:
            return
        ended = self._word(b"COMMIT") if self._within else None
        self._end()
        if self._raw.read_only:
            self._within = False
            self._pgconn.flush()
            return
        try:
            self.read()
            if ended is not None and (ended.result is None or ended.result.command_status == b"ROLLBACK"):
                raise psycopg.InternalError("The transaction was aborted before, and could not be committed.")
        except BaseException:
            if not self._raw.closed:
                self.rollback()
            raise
        self._within = False

    def rollback(self) -> None:
        if self._sent or self._open_ended:
            # After a statement that failed the server skips all others up to this sync message.
            self._end()
            with suppress(psycopg.DatabaseError):
                self.read()
        if self._within and not self._raw.closed:
            self._word(b"ROLLBACK")
            self._end()
            self.read()
        self._within = False

    def leave(self) -> None:
        """Leave pipeline mode, so that psycopg's own methods work; the transaction goes on."""
        if self._single_statement:
            raise MoreThanOne
        self.written += 1
        if not self.is_used:
            return
        if self._sent or self._open_ended:
            self._end()
            self.read()
        self._pgconn.exit_pipeline_mode()
        self._piped = False

    # Sending -----------------------------------------------------------------------------------------

    def _send(self, sql: str, values: Mapping[str, Any]) -> PendingResult:
        if not self._piped:
            self._enter()
        if self._single_statement:
            self._use_up()
        elif not self._within and not self._raw.autocommit:
            self._within = True
            isolation = b" ISOLATION LEVEL REPEATABLE READ READ ONLY" if self._raw.read_only else b""
            self._word(b"BEGIN" + isolation)
        text, taken, formats, reads = _translated(sql)
        if not reads:
            self.written += 1
        name = self._prepared.get(sql)
        if name is None:
            name = self._prepare(sql, text)
        given = None
        if formats:
            given = self._transformer.dump_sequence(taken(values), formats)
        self._pgconn.send_query_prepared(name, given)
        return self._noted()

    def _use_up(self) -> None:
        if self._spent:
            raise MoreThanOne
        self._spent = True

    def _word(self, text: bytes) -> PendingResult:
        self._pgconn.send_query_params(text, None)
        return self._noted()

    def _noted(self) -> PendingResult:
        answer = PendingResult(self)
        self._sent.append(answer)
        self._open_ended = True
        return answer

    def _prepare(self, sql: str, text: bytes) -> bytes:
        if len(self._prepared) >= MAX_PREPARED:
            _, oldest = self._prepared.popitem(last=False)
            self._word(b"DEALLOCATE " + oldest)
        self._number += 1
        name = b"keyrack_%d" % self._number
        self._pgconn.send_prepare(name, text)
        self._noted()
        self._prepared[sql] = name
        self._unsure.append(sql)
        return name

    def _end(self) -> None:
        """Send a sync message: an error before it does not stop what comes after it, nor the other way round."""
        self._pgconn.pipeline_sync()
        self._sent.append(None)
        self._open_ended = False

    def _enter(self) -> None:
        self._pgconn.enter_pipeline_mode()
        self._piped = True
        self._within = self._pgconn.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR)

    # Reading -----------------------------------------------------------------------------------------

    def read(self) -> None:
        """Read the results of all statements that were sent. Raises the error of the first that failed."""
        pgconn, sent = self._pgconn, self._sent
        if self._open_ended:
            pgconn.send_flush_request()
        self._flush()
        failed = None
        while sent:
            while pgconn.is_busy():
                self._until_heard()
                pgconn.consume_input()
            result = pgconn.get_result()
            if result is None:
                sent.popleft()  # the end of one statement's results
                continue
            status = result.status
            if status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
                if (answer := sent[0]) is not None:
                    answer.result = result
            elif status == ExecStatus.PIPELINE_SYNC:
                sent.popleft()
            elif status != ExecStatus.PIPELINE_ABORTED and failed is None:
                failed = result
                if self._open_ended:
                    with suppress(psycopg.OperationalError):  # the connection broke; `failed` says why
                        self._end()
                        self._flush()
        if failed is not None or pgconn.status == ConnStatus.BAD:
            self._fail(failed)
        self._unsure.clear()

    def _fail(self, failed: PGresult | None) -> None:
        for sql in self._unsure:
            self._prepared.pop(sql, None)
        self._unsure.clear()
        if failed is not None and _is_stale(failed):
            # Another session changed a table, as a later version's migration does, or deallocated the statement: it
            # will always fail in this session; a new session prepares it anew.
            self._raw.close()
            raise psycopg.OperationalError("A statement that was prepared is not valid any more.")
        if failed is None or failed.error_field(DiagnosticField.SQLSTATE) is None:  # raised by libpq, not by the server
            raise psycopg.OperationalError(self._pgconn.get_error_message().strip() or "The connection broke.")
        raise psycopg.errors.error_from_result(failed, self._raw.info.encoding)

    def _until_heard(self) -> None:
        """Wait until something can be read. Raises silence.Silent."""
        fiber, seconds = fibers.current(), silence.SECONDS
        if fiber is not None:
            came = self._watched(fiber).until_readable(fiber, seconds)
        else:
            came = bool(self._polled().poll(seconds * 1000))
        if not came:
            raise self._given_up()

    def _given_up(self) -> silence.Silent:
        self.unwatch()
        return silence.give_up(self._pgconn)

    def _flush(self) -> None:
        until = time.monotonic() + silence.SECONDS
        while self._pgconn.flush():
            # The server reads no further statements before its answers are read.
            if time.monotonic() > until:
                raise self._given_up()
            if fibers.current() is not None:
                fibers.sleep(FULL_SECONDS)
            else:
                self._polled().modify(self._pgconn.socket, select.POLLIN | select.POLLOUT)
                self._polled().poll(silence.SECONDS * 1000)
                self._polled().modify(self._pgconn.socket, select.POLLIN)
            self._pgconn.consume_input()

    def _watched(self, fiber: Fiber) -> fibers.DescriptorWatch:
        if self._watch is None or self._watch.loop is not fiber.loop:
            self._watch = fibers.DescriptorWatch(fiber.loop, self._pgconn.socket, self._read_unsolicited)
        return self._watch

    def _read_unsolicited(self) -> None:
        """Read a message that answers no statement: that the server shuts down, or ended the transaction."""
        try:
            self._pgconn.consume_input()
        except psycopg.OperationalError:
            self.unwatch()  # the next statement raises it

    def unwatch(self) -> None:
        """Stop watching the socket; to be called before the connection is closed."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.end()

    def _polled(self) -> select.poll:
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(self._pgconn.socket, select.POLLIN)
        return self._poll

    @cached_property
    def _transformer(self) -> Any:
        # Made late, as SQLAlchemy registers how JSON is read after it has connected.
        return Transformer(self._raw)


def _is_stale(failed: PGresult) -> bool:
    """Whether a prepared statement is planned for other columns than there are, or is gone from the server."""
    state = failed.error_field(DiagnosticField.SQLSTATE)
    if state == _UNSUPPORTED:
        return failed.error_field(DiagnosticField.SOURCE_FUNCTION) == b"RevalidateCachedQuery"
    return state == _NO_SUCH_STATEMENT


@cache
def _translated(sql: str) -> tuple[bytes, Callable[[Mapping[str, Any]], Sequence[Any]], Sequence[PyFormat], bool]:
    """A statement with numbered placeholders, a function that picks their values in that order, the format of each, and
    whether it certainly only reads.
    """
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return "%"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    text = _PLACE.sub(numbered, sql).encode()
    taken: Callable[[Mapping[str, Any]], Sequence[Any]] = itemgetter(*names) if len(names) > 1 else _values(names)
    return text, taken, [PyFormat.TEXT] * len(names), sql.startswith("SELECT")


def _values(names: Sequence[str]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    return lambda values: [values[name] for name in names]
