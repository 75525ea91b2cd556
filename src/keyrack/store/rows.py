"""How rows become records and lists become pages; must name no table of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from operator import itemgetter
from typing import Any, Generic, NamedTuple, ParamSpec, TypeVar

from sqlalchemy import Connection, Row, Select, Table, UnaryExpression, func, insert, literal, select
from sqlalchemy.sql.operators import desc_op

from keyrack.model import Page, Place, Window
from keyrack.store import counts
from keyrack.store.engine.prepared import CompiledStatement, Prepared, Statement, page_size, placeholder
from keyrack.store.engine.prepared import Row as PreparedRow
from keyrack.store.sealing import access_tree, sealed
from keyrack.store.sealing.seals import VOLATILE, seals_of

P = ParamSpec("P")
T = TypeVar("T")

COUNTED = "tree_root"
_PLACE = "place_in_the_list"
ONE_ROW = select(literal(1).label("one")).subquery("one_row")
"""A table with one row: what is joined to it by an outer join gives one row, whether it exists or not."""


def inserted(connection: Connection, table: Table, values: Mapping[str, Any]) -> int:
    """Insert a row, with a seal if its table has seals; answers its id."""
    if table.name in VOLATILE:
        return int(sealed.insert_row(connection, table, values)["id"])
    return int(_inserting(table, tuple(values)).value(connection, values))


def move_on(connection: Connection, table: Table, number: int) -> None:
    """Let the ids that the database gives from now on be above `number`, which was chosen; SQLite does so itself."""
    if connection.dialect.name == "postgresql":
        moved = (
            "SELECT setval(pg_get_serial_sequence(%s, 'id'), GREATEST(%s, nextval(pg_get_serial_sequence(%s, 'id'))))"
        )
        connection.exec_driver_sql(moved, (table.name, number, table.name))


@cache
def _inserting(table: Table, columns: tuple[str, ...]) -> Statement:
    named = {name: placeholder(table.c[name]) for name in columns}
    return Statement(lambda: insert(table).values(named).returning(table.c.id))


class Paged(Generic[P]):
    """A prepared question that is answered in pages."""

    def __init__(self, make: Callable[P, Select[Any]], *, in_tree: bool = False) -> None:
        """in_tree: see paged_in_tree."""
        self.__doc__ = make.__doc__
        self._in_tree = in_tree

        @wraps(make)
        def count(*args: P.args, **kwargs: P.kwargs) -> Select[Any]:
            return make(*args, **kwargs).order_by(None).with_only_columns(func.count(), maintain_column_froms=True)

        def rows(*args: Any, **kwargs: Any) -> Select[Any]:
            offset, limit, handed_in = kwargs.pop("offset"), kwargs.pop("limit"), kwargs.pop("handed_in")
            beside = counts.columns(access_tree.root_content, handed_in, count(*args, **kwargs))
            return make(*args, **kwargs).offset(offset).limit(limit).add_columns(*beside)

        bounds = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("offset", "limit", "handed_in")]
        parameters = [*inspect.signature(make).parameters.values(), *bounds]
        rows.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]

        def further(*args: Any, **kwargs: Any) -> Select[Any]:
            after, limit = kwargs.pop("after"), kwargs.pop("limit")
            statement = make(*args, **kwargs)
            column, descending = _order(statement)
            if after is not None:
                statement = statement.where(column < after if descending else column > after)
            return statement.limit(limit)

        def further_placed(*args: Any, **kwargs: Any) -> Select[Any]:
            query = further(*args, **kwargs)
            return query.add_columns(_order(query)[0].label(_PLACE))

        bounds = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in ("after", "limit")]
        parameters = [*inspect.signature(make).parameters.values(), *bounds]
        for question in (further, further_placed):
            question.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self._count = Prepared(count)
        self._rows: Prepared[...] = Prepared(rows)
        self._further: Prepared[...] = Prepared(further)
        self._further_placed: Prepared[...] = Prepared(further_placed)

    def page(
        self,
        connection: Connection,
        record: Callable[[PreparedRow], T] | Records[T],
        window: Window,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Page[T]:
        """One page. By offset, with the count of all rows. By a place (window.after), without a count, which costs the
        same for every page; the list must be in the order of one column that is unique in it.
        """
        if window.after is not None:
            return self._after(connection, record, window, *args, **kwargs)
        offset, limit = window.offset, window.limit
        # Counts of searches are not kept: there are as many searches as texts.
        marked = self._in_tree and not any(isinstance(one, str) for one in args)
        of = (self, *args, *kwargs.items())
        before = counts.known(connection, of) if marked else counts.NOT_COUNTED
        bounds = {"offset": offset or None, "limit": page_size(limit), "handed_in": before.mark if marked else None}
        plan, rows = self._rows.raw(connection, *args, **bounds, **kwargs)
        if rows:
            mark, total = rows[0][-2:]
            if marked and total is not None:
                access_tree.take_root(connection, mark)
            sure = mark if mark == access_tree.root_so_far(connection) else None
            total = counts.taken(connection, of, before, sure, total)
        else:
            total = self._count.value(connection, *args, **kwargs) if offset else 0
        item_rows = [row[:-2] for row in rows]
        if isinstance(record, Records):
            items = tuple(record.of(connection, plan, item_rows))
        else:
            items = tuple(record(plan.row(row)) for row in item_rows)
        return Page(items=items, total=total, offset=offset, limit=limit)

    def _after(
        self,
        connection: Connection,
        record: Callable[[PreparedRow], T] | Records[T],
        window: Window,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Page[T]:
        (after,) = window.after or (None,)
        bounds = {"after": after, "limit": window.limit + 1}
        if isinstance(record, Records):
            records: list[Any] = record.all(connection, self._further, *args, **bounds, **kwargs)
            return piece_after([(one, (one.id,)) for one in records], window)
        rows = self._further_placed.rows(connection, *args, **bounds, **kwargs)
        places = [(row.pop(_PLACE),) for row in rows]
        return piece_after(
            [(record(row), at) for row, at in zip(rows[: window.limit + 1], places, strict=True)], window
        )


def piece_after(placed: Sequence[tuple[T, Place]], window: Window) -> Page[T]:
    """The page that follows a place; placed: its items with their places, and one item more if more follow."""
    shown = placed[: window.limit]
    after = shown[-1][1] if len(placed) > window.limit else None
    return Page(tuple(item for item, _ in shown), 0, 0, window.limit, after, counted=False)


def _order(statement: Select[Any]) -> tuple[Any, bool]:
    """The one column that orders a statement, and whether it is descending."""
    (clause,) = statement._order_by_clauses
    if isinstance(clause, UnaryExpression):
        return clause.element, clause.modifier is desc_op
    return clause, False


class KeptRecord(NamedTuple):
    """A record, the row that it was made of, and the places in the tree that its seals were checked against."""

    record: Any
    row: tuple[Any, ...]
    fitting: access_tree.FittingPlaces


class Records(Generic[T]):
    """Makes records of rows, and keeps them: a row that is read again, unchanged, gets the record that was made of it.

    To convert a row's values, check its seal and make a record takes ten times as long as to read it. A kept record is
    used only if the row is the same now and its places in the tree still fit (store/sealing/access_tree.py), so nothing
    that others changed or put back is taken for true. Only the last state of a row is kept. A question whose last
    column is COUNTED reads the tree's root beside its rows.
    """

    def __init__(
        self,
        make: Callable[[Connection, PreparedRow], T],
        *,
        named: tuple[str, ...] = ("id",),
        keep: Callable[[T], bool] = lambda record: True,
        most: int = 5_000,
        table: Table | None = None,
    ) -> None:
        """make: a record of a row; named: the columns that identify a row, or all columns if a question lacks one of
        them; keep: whether a record may be kept; most: how many are kept for each statement; table: the table of the
        rows, if `named` is its key, so that the records of deleted rows are dropped.
        """
        self.table = table
        self.name_in_table = itemgetter(*named)
        self._make, self._named, self._keep, self._most = make, named, keep, most

    def all(self, connection: Connection, question: Prepared[P], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """A record of each row that answers a question."""
        return self.of(connection, *question.raw(connection, *args, **kwargs))

    def of(self, connection: Connection, plan: CompiledStatement, rows: Iterable[tuple[Any, ...]]) -> list[T]:
        """A record of each row; plan, rows: as Prepared.raw answers them."""
        kept = seals_of(connection).kept_by(self, plan.sql)
        counted = plan.names[-1:] == (COUNTED,)
        name_of = self._name_of(plan)
        records = []
        for raw in rows:
            row = raw[:-1] if counted else raw
            if counted:
                access_tree.take_root(connection, raw[-1])
            name = name_of(row)
            known = kept.get(name)
            # Whether it has places is asked first: most have none, and a call for each row would cost more.
            if (
                known is None
                or known.row != row
                or (known.fitting.places and not access_tree.still_fit(connection, known.fitting))
            ):
                known = self._made(connection, plan, kept, name, row)
            records.append(known.record)
        return records

    def one(self, connection: Connection, question: Prepared[P], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The record of the first row, or None."""
        records = self.all(connection, question, *args, **kwargs)
        return records[0] if records else None

    def _name_of(self, plan: CompiledStatement) -> Callable[[tuple[Any, ...]], Any]:
        try:
            return itemgetter(*map(plan.names.index, self._named))
        except ValueError:  # a question that lacks one of them
            return lambda row: row

    def _made(
        self, connection: Connection, plan: CompiledStatement, kept: dict[Any, Any], name: Any, row: tuple[Any, ...]
    ) -> KeptRecord:
        with access_tree.collecting_places(connection) as fitting:
            record = self._make(connection, plan.row(row))
        made = KeptRecord(record, row, fitting)
        if self._keep(record):
            if len(kept) >= self._most:
                kept.clear()
            kept[name] = made
        return made


def paged(make: Callable[P, Select[Any]]) -> Paged[P]:
    """A prepared question (store/engine/prepared.py) that is answered in pages."""
    return Paged(make)


def paged_in_tree(make: Callable[P, Select[Any]]) -> Paged[P]:
    """The same for a list that depends only on sealed columns of rows that the tree counts, and not, say, on the time:
    it is counted only if anything in the tree changed since it was counted last (store/counts.py).
    """
    return Paged(make, in_tree=True)


def page(
    connection: Connection,
    statement: Select[Any],
    record: Callable[[Row[Any]], T],
    *,
    offset: int,
    limit: int,
    after: Place | None = None,
) -> Page[T]:
    """One page of an ordered statement, with the count of all its rows, or after a place, without it, as Paged.page."""
    if after is not None:
        column, descending = _order(statement)
        if after:
            statement = statement.where(column < after[0] if descending else column > after[0])
        fetched = connection.execute(statement.limit(limit + 1)).all()
        return piece_after([(record(row), (getattr(row, column.key),)) for row in fetched], Window(limit, after=after))
    total = connection.execute(select(func.count()).select_from(statement.order_by(None).subquery())).scalar_one()
    rows = connection.execute(statement.offset(offset).limit(limit))
    return Page(items=tuple(record(row) for row in rows), total=total, offset=offset, limit=limit)


def first(rows: Iterable[T | None]) -> T | None:
    """The first that is not None; a generator is not asked further."""
    return next((row for row in rows if row is not None), None)
