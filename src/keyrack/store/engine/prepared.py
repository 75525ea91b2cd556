"""Statements that are made once and then run on the driver itself with bound values; must know no table.

To build a statement with SQLAlchemy and look up its compiled form takes thirty times as long as SQLite needs to answer
it. So a question is written as a function that builds its statement from its arguments, and `prepared` calls that
function once, with placeholders for the arguments. It keeps the text, and how values are bound and rows are read. All
of it runs inside the transaction that SQLAlchemy has open on the connection.
"""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Generic, ParamSpec

from sqlalchemy import (
    ARRAY,
    BindParameter,
    Column,
    Connection,
    Dialect,
    Executable,
    Insert,
    Integer,
    LargeBinary,
    String,
    Text,
    bindparam,
    literal_column,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeDecorator, TypeEngine

from keyrack.store.engine.execute import as_raised_by_sqlalchemy, execute, write_lost
from keyrack.store.engine.sqlite_types import CHECKS
from keyrack.store.tables.columns import Json

P = ParamSpec("P")
Process = Callable[[Any], Any]

MAX_USUAL_TYPES = 1000
_PREFIX = "given_"  # keeps our placeholders apart from those that SQLAlchemy makes itself


class Row(dict[str, Any]):
    """A row by the names of its columns, as keys or as attributes."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class _Listed(TypeDecorator[Any]):
    """Several values as one: an array for PostgreSQL, a JSON text for SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, item: TypeEngine[Any]) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(self.item) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return list(value) if dialect.name == "postgresql" else json.dumps(list(value))


class _Among(ColumnElement[bool]):
    inherit_cache = False

    def __init__(self, column: Any, values: Any) -> None:
        item = String() if isinstance(column.type, String) else column.type
        self.column = column
        self.values = bindparam(values.key, type_=_Listed(item))


@compiles(_Among, "sqlite")
def _among_on_sqlite(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = compiler.process(element.column, **options), compiler.process(element.values, **options)
    return f"{column} IN (SELECT value FROM json_each({values}))"  # noqa: S608 — placeholders and names of ours


@compiles(_Among, "postgresql")
def _among_on_postgresql(element: _Among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = compiler.process(element.column, **options), compiler.process(element.values, **options)
    return f"{column} = ANY({values})"


def among(column: Any, values: Iterable[Any]) -> ColumnElement[bool]:
    """A condition: the column has one of these values; values: an argument of a prepared question."""
    return _Among(column, values)


_NOTHING: Any = object()  # differs from every value


class Written(int):
    """A number that is written into the statement as a literal, not bound: each makes a statement of its own, so it is
    for a few usual numbers only.

    PostgreSQL's generic plan does not know a bound limit and guesses a tenth of all rows. That plan looks so costly
    that the server makes a custom one at each call, which takes longer than a page does.
    """

    __slots__ = ()


USUAL_SIZES = frozenset({10, 15, 20, 25, 30, 40, 50, 100, 200})
"""Rows of a page as nearly everybody asks for them."""


def page_size(limit: int) -> int:
    """The limit of a page, for a prepared question: a usual one stands in the statement."""
    return Written(limit) if limit in USUAL_SIZES else limit


@dataclass(frozen=True, slots=True)
class CompiledStatement:
    """A statement as the driver takes it: its text, how each value is converted, and how a row is read."""

    sql: str
    placeholders: tuple[str, ...]
    """Their names for the driver."""
    taken: Callable[[Mapping[str, Any]], Sequence[Any]]
    """The arguments' values, in the order of their placeholders."""
    fixed: tuple[tuple[int, Any], ...]
    """The values that are known already, each with the number of its placeholder."""
    converted: tuple[tuple[int, Process], ...]
    """How a value is converted, by the number of its placeholder."""
    positional: bool
    names: tuple[str, ...]
    reads: tuple[tuple[str, Process], ...]
    writes_one: bool = False
    """Whether it must write exactly one row each time it runs; else it fails."""
    checks: tuple[tuple[int, Process], ...] = ()
    """By the number of a column, how a value is read that may be of another type than the column's."""
    usual: set[tuple[type, ...]] = field(default_factory=set, compare=False)
    """Types of rows in which the checks change nothing, as in nearly all: to look them up is far quicker."""

    def bound(self, given: Mapping[str, Any]) -> Any:
        """The values for the driver."""
        values = list(self.taken(given))
        for at, value in self.fixed:
            values.insert(at, value)
        for at, process in self.converted:
            values[at] = process(values[at])
        return tuple(values) if self.positional else dict(zip(self.placeholders, values, strict=True))

    def bound_many(self, given: Iterable[Mapping[str, Any]]) -> list[Any]:
        """As bound, for many sets of values. An object that follows itself is converted once."""
        made = []
        last = [_NOTHING] * len(self.converted)
        converted: list[Any] = [None] * len(self.converted)
        for one in given:
            values = list(self.taken(one))
            for at, value in self.fixed:
                values.insert(at, value)
            for number, (at, process) in enumerate(self.converted):
                value = values[at]
                if value is not last[number]:
                    last[number], converted[number] = value, process(value)
                values[at] = converted[number]
            made.append(tuple(values) if self.positional else dict(zip(self.placeholders, values, strict=True)))
        return made

    def row(self, values: Sequence[Any]) -> Row:
        """A row of the driver as a Row."""
        if self.checks and (types := tuple(map(type, values))) not in self.usual:
            values = self._checked(values, types)
        row = Row(zip(self.names, values, strict=False))
        for name, process in self.reads:
            if row[name] is not None:
                row[name] = process(row[name])
        return row

    def _checked(self, values: Sequence[Any], types: tuple[type, ...]) -> Sequence[Any]:
        checked = list(values)
        for at, process in self.checks:
            if at < len(checked):
                checked[at] = process(checked[at])
        if all(now is was for now, was in zip(checked, values, strict=True)):
            if len(self.usual) >= MAX_USUAL_TYPES:
                self.usual.clear()
            self.usual.add(types)
        return checked


@dataclass(frozen=True, slots=True)
class PendingRows:
    """The rows of a statement that was sent and not waited for."""

    plan: CompiledStatement
    answer: Any

    def rows(self) -> list[Row]:
        """All rows, at most once."""
        return [self.plan.row(values) for values in self.answer.fetchall()]

    def wait(self, connection: Connection) -> list[Row]:
        """As rows(), within the transaction; an error of the driver's is raised as SQLAlchemy's, as everywhere."""
        try:
            return self.rows()
        except connection.dialect.loaded_dbapi.Error as error:
            raise as_raised_by_sqlalchemy(connection, error) from error

    def value(self) -> Any:
        """The first column of the first row, None where there is none; at most once."""
        rows = self.rows()
        return rows[0][self.plan.names[0]] if rows else None


class Statement:
    """One statement, planned once for each kind of database."""

    def __init__(self, make: Callable[[], Executable], *, one: bool = False) -> None:
        """one: it changes exactly one row, which exists, and fails otherwise; as an insert of one row always does."""
        self._make = make
        self._one = one
        self._plans: dict[str, CompiledStatement] = {}

    def rows(self, connection: Connection, given: Mapping[str, Any]) -> list[Row]:
        """All rows."""
        plan = self._plan(connection)
        rows = execute(connection, plan.sql, plan.bound(given)).fetchall()
        if plan.writes_one and len(rows) != 1:
            raise write_lost()
        return [plan.row(values) for values in rows]

    def row(self, connection: Connection, given: Mapping[str, Any]) -> Row | None:
        """The first row, None where there is none."""
        plan = self._plan(connection)
        values = execute(connection, plan.sql, plan.bound(given)).fetchone()
        if plan.writes_one and values is None:
            raise write_lost()
        return None if values is None else plan.row(values)

    def value(self, connection: Connection, given: Mapping[str, Any]) -> Any:
        """The first column of the first row, None where there is none."""
        plan = self._plan(connection)
        row = execute(connection, plan.sql, plan.bound(given)).fetchone()
        if row is None:
            return None
        return plan.row(row[:1])[plan.names[0]] if plan.reads or plan.checks else row[0]

    def values(self, connection: Connection, given: Mapping[str, Any]) -> list[Any]:
        """The first column of all rows."""
        plan = self._plan(connection)
        rows = execute(connection, plan.sql, plan.bound(given)).fetchall()
        reads = dict(plan.reads).get(plan.names[0]) or dict(plan.checks).get(0)
        return [values[0] if reads is None or values[0] is None else reads(values[0]) for values in rows]

    def raw(self, connection: Connection, given: Mapping[str, Any]) -> tuple[CompiledStatement, list[tuple[Any, ...]]]:
        """All rows as the driver returns them, and the plan that reads them."""
        plan = self._plan(connection)
        return plan, execute(connection, plan.sql, plan.bound(given)).fetchall()

    def run(self, connection: Connection, given: Mapping[str, Any]) -> int:
        """How many rows it changed."""
        plan = self._plan(connection)
        return int(execute(connection, plan.sql, plan.bound(given), one=_one(plan)).rowcount)

    def enqueue(self, connection: Connection, given: Mapping[str, Any]) -> PendingRows:
        """Run it without waiting, as run_many does; its rows may be read later, also after the commit."""
        plan = self._plan(connection)
        return PendingRows(plan, execute(connection, plan.sql, plan.bound(given), ahead=True, one=_one(plan)))

    def run_many(self, connection: Connection, given: Iterable[Mapping[str, Any]]) -> None:
        """Run it once for each set of values. On PostgreSQL this does not wait: an error is raised by the next
        question, or by the commit.
        """
        plan = self._plan(connection)
        bound = plan.bound_many(given)
        if bound:
            execute(connection, plan.sql, bound, many=True, one=_one(plan))

    def _plan(self, connection: Connection) -> CompiledStatement:
        plan = self._plans.get(connection.dialect.name)
        if plan is None:
            plan = self._plans[connection.dialect.name] = _planned(self._make(), connection.dialect, self._one)
        return plan


class Prepared(Generic[P]):
    """A question whose statement is built once for each combination of its arguments that are None, bool or Written."""

    def __init__(self, make: Callable[P, Executable]) -> None:
        self.__doc__ = make.__doc__
        self._make = make
        parameters = inspect.signature(make).parameters
        self._names = tuple(parameters)
        self._blank: dict[str, Any] = {name: parameter.default for name, parameter in parameters.items()}
        self._statements: dict[tuple[Any, ...], Statement] = {}
        self._lock = threading.Lock()

    def rows(self, connection: Connection, *args: P.args, **kwargs: P.kwargs) -> list[Row]:
        """All rows."""
        given = self._given(args, kwargs)
        return self._statement(given).rows(connection, given)

    def row(self, connection: Connection, *args: P.args, **kwargs: P.kwargs) -> Row | None:
        """The first row, None where there is none."""
        given = self._given(args, kwargs)
        return self._statement(given).row(connection, given)

    def value(self, connection: Connection, *args: P.args, **kwargs: P.kwargs) -> Any:
        """The first column of the first row, None where there is none."""
        given = self._given(args, kwargs)
        return self._statement(given).value(connection, given)

    def values(self, connection: Connection, *args: P.args, **kwargs: P.kwargs) -> list[Any]:
        """The first column of all rows."""
        given = self._given(args, kwargs)
        return self._statement(given).values(connection, given)

    def raw(
        self, connection: Connection, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[CompiledStatement, list[tuple[Any, ...]]]:
        """All rows as the driver has them, and the plan that reads them."""
        given = self._given(args, kwargs)
        return self._statement(given).raw(connection, given)

    def run(self, connection: Connection, *args: P.args, **kwargs: P.kwargs) -> int:
        """How many rows it changed."""
        given = self._given(args, kwargs)
        return self._statement(given).run(connection, given)

    def enqueue(self, connection: Connection, *args: P.args, **kwargs: P.kwargs) -> PendingRows:
        """Run it once without waiting, as run_many does; its rows may be read later, also after the commit."""
        given = self._given(args, kwargs)
        return self._statement(given).enqueue(connection, given)

    def _given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if len(args) == len(self._names):
            return dict(zip(self._names, args, strict=True))
        given = self._blank.copy()
        given.update(zip(self._names, args, strict=False))
        given.update(kwargs)
        return given

    def _statement(self, given: Mapping[str, Any]) -> Statement:
        shape = tuple([value if type(value) in _CHOOSING else _BOUND for value in given.values()])
        statement = self._statements.get(shape)
        if statement is None:
            with self._lock:
                statement = self._statements.setdefault(shape, Statement(lambda: self._made(dict(given))))
        return statement

    def _made(self, given: Mapping[str, Any]) -> Executable:
        arguments = {
            name: _in_the_statement(value) if type(value) in _CHOOSING else bindparam(_PREFIX + name)
            for name, value in given.items()
        }
        make: Callable[..., Executable] = self._make
        return make(**arguments)


_BOUND = object()
_CHOOSING = frozenset({type(None), bool, Written})


def _in_the_statement(value: Any) -> Any:
    return literal_column(str(int(value)), Integer) if isinstance(value, Written) else value


def prepared(make: Callable[P, Executable]) -> Prepared[P]:
    """A question whose statement is built once. make: returns the statement; to it the arguments are placeholders.

    Only an argument that is None, True or False reaches make as it is, so that it may decide what the statement says,
    and one that is Written as a literal number. Lists are compared by `among`.
    """
    return Prepared(make)


def placeholder(column: Column[Any], name: str = "") -> BindParameter[Any]:
    """A placeholder for a value of this column, in a Statement; name: its name there, if not the column's."""
    return bindparam(_PREFIX + (name or column.name), type_=column.type)


def _planned(statement: Executable, dialect: Dialect, one: bool) -> CompiledStatement:
    if isinstance(statement, Insert) and not statement._returning:
        statement = statement.inline()  # without RETURNING the new id, which nobody reads
    compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]
    assert isinstance(compiled, SQLCompiler)
    placeholders = tuple(compiled.positiontup or compiled.binds)
    arguments: list[str] = []
    fixed: list[tuple[int, Any]] = []
    converted: list[tuple[int, Process]] = []
    for at, name in enumerate(placeholders):
        bind = compiled.binds[name]
        process = _binding(bind.type, dialect)
        if not bind.key.startswith(_PREFIX):
            value = bind.effective_value
            fixed.append((at, value if process is None else process(value)))
            continue
        arguments.append(bind.key.removeprefix(_PREFIX))
        if process is not None:
            converted.append((at, process))
    if "POSTCOMPILE" in str(compiled):
        raise ValueError("A list in a prepared statement is compared by among().")
    columns = compiled._result_columns
    one = one or _inserts_one(statement)
    reads = []
    checks = []
    for at, column in enumerate(columns):
        process = column.type.dialect_impl(dialect).result_processor(dialect, None)
        if process in CHECKS:
            checks.append((at, process))
        elif process is not None:
            reads.append((column.keyname, process))
    return CompiledStatement(
        sql=_failing_for_none(str(compiled)) if one and not columns and dialect.name == "postgresql" else str(compiled),
        placeholders=placeholders,
        taken=_taking(arguments),
        fixed=tuple(fixed),
        converted=tuple(converted),
        positional=bool(compiled.positional),
        names=tuple(column.keyname for column in columns),
        reads=tuple(reads),
        writes_one=one,
        checks=tuple(checks),
    )


def _failing_for_none(sql: str) -> str:
    """The statement, made to fail in the server if it writes no row: COMMIT is sent without waiting for it."""
    return f"WITH written AS ({sql} RETURNING 1) SELECT 1 / count(*) FROM written"  # noqa: S608


def _inserts_one(statement: Executable) -> bool:
    return (
        isinstance(statement, Insert)
        and statement.select is None
        and not statement._multi_values
        and getattr(statement, "_post_values_clause", None) is None
    )


def _binding(kind: TypeEngine[Any], dialect: Dialect) -> Process | None:
    """How a value is converted for the driver; None where it is passed as it is."""
    if isinstance(kind, LargeBinary):
        # SQLAlchemy would wrap bytes in objects of the driver, of which no two are equal; then equal questions, such as
        # the one for a token's user, could not be sent once for all (shared_reads.py).
        return _as_hex if dialect.name == "postgresql" else None
    if isinstance(kind, Json) and dialect.name == "postgresql":
        return json.dumps  # as the driver does, without the lookup of a dumper for each value
    return kind.dialect_impl(dialect).bind_processor(dialect)


def _as_hex(value: bytes | None) -> str | None:
    """Bytes in the text form that PostgreSQL reads."""
    return None if value is None else "\\x" + value.hex()


def _taking(arguments: Sequence[str]) -> Callable[[Mapping[str, Any]], Sequence[Any]]:
    """A function that picks the values of these arguments, as a sequence."""
    if len(arguments) > 1:
        return itemgetter(*arguments)
    if not arguments:
        return lambda given: ()
    (name,) = arguments
    return lambda given: (given[name],)


def _one(plan: CompiledStatement) -> bool:
    """Whether the written rows have to be counted here; rows that are returned are counted where they are read."""
    return plan.writes_one and not plan.names
