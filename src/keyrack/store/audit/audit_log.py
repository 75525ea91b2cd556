"""The places of events in the audit log, and the tree over them; must sign nothing and decide nothing.

protocol/audit_tree.py describes the tree. Its leaves are kept for good, with a hash of 32 bytes for each event, and so
is every eighth level above them: the hash of any part of the tree takes few rows, and a proof takes few parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Table, delete, func, insert, select

from keyrack.protocol import audit_tree
from keyrack.store.engine.prepared import Row, Statement, placeholder, prepared
from keyrack.store.sealing.canonical_json import encode
from keyrack.store.sealing.event_seals import COLUMNS
from keyrack.store.sealing.seals import SEAL, seals_of
from keyrack.store.tables import audit_checkpoints, audit_leaves, audit_nodes, events

LEVELS = 8
"""Each level of the tree whose number is a multiple of this is kept."""
BATCH_SIZE = 2_000
BACK_ON_POSTGRESQL = 10_000
"""How far below the last id a transaction that commits only now may have taken its own."""


@dataclass(frozen=True, slots=True)
class SignedCheckpoint:
    """A checkpoint's text and its signature."""

    text: str
    signature: str


@dataclass(frozen=True, slots=True)
class ChainedEvent:
    """A place in the log. hash: the event's when it got the place; record: the event as it is now, None if it is gone;
    sound: whether the row of the place itself is as Keyrack wrote it.
    """

    position: int
    event_id: int
    hash: bytes
    record: Mapping[str, Any] | None
    sound: bool


def text_of(event: Mapping[str, Any]) -> bytes:
    """An event as the bytes that are hashed: sorted JSON without its seal and without fields that are None; times in
    microseconds since 1970.
    """
    return encode({name: value for name, value in event.items() if value is not None and name != SEAL}).encode()


def newest(connection: Connection) -> SignedCheckpoint | None:
    """The last checkpoint, or None."""
    row = _newest.row(connection)
    return None if row is None else SignedCheckpoint(row["text"], row["signature"])


@prepared
def _newest() -> Select[Any]:
    return select(audit_checkpoints).order_by(audit_checkpoints.c.size.desc()).limit(1)


def checkpoints(connection: Connection) -> list[SignedCheckpoint]:
    """All checkpoints that are kept, the smallest first."""
    rows = connection.execute(select(audit_checkpoints).order_by(audit_checkpoints.c.size))
    return [SignedCheckpoint(row.text, row.signature) for row in rows]


def checkpoint_sizes(connection: Connection) -> list[int]:
    """The sizes of the log at which checkpoints are kept, ascending."""
    return list(connection.execute(select(audit_checkpoints.c.size).order_by(audit_checkpoints.c.size)).scalars())


def places_end(connection: Connection) -> int:
    """The number of the first free place: how many places there are if none is missing."""
    last = _last_place.value(connection)
    return 0 if last is None else int(last) + 1


@prepared
def _last_place() -> Select[Any]:
    return select(func.max(audit_leaves.c.position))


def count_nodes(connection: Connection) -> int:
    """How many hashes above the leaves are kept."""
    return int(connection.execute(select(func.count()).select_from(audit_nodes)).scalar_one())


def nodes_of(size: int) -> int:
    """How many hashes above the leaves a log of this size has to have."""
    return sum(size >> level for level in range(LEVELS, size.bit_length(), LEVELS))


def is_empty(connection: Connection) -> bool:
    """Whether no event has a place."""
    return connection.execute(select(audit_leaves.c.position).limit(1)).first() is None


def whole(connection: Connection) -> audit_tree.Whole:
    """A function that answers the hash of a whole part of the tree. It raises CheckpointProblem if rows are missing."""

    def hashed(level: int, number: int) -> bytes:
        base = level // LEVELS * LEVELS
        first, count = number << level - base, 1 << level - base
        if base == 0:
            rows = _leaves.values(connection, first, first + count)
        else:
            rows = _nodes.values(connection, base, first, first + count)
        if len(rows) != count:
            raise audit_tree.CheckpointProblem("parts of the chain are missing")
        return bytes(_above(rows))

    return hashed


def _above(hashes: list[bytes]) -> bytes:
    """The hash of a whole part; hashes: of all its nodes on one level, whose number is a power of two."""
    while len(hashes) > 1:
        hashes = [audit_tree.node(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]


@prepared
def _leaves(first: int, end: int) -> Select[Any]:
    return (
        select(audit_leaves.c.hash)
        .where(audit_leaves.c.position >= first, audit_leaves.c.position < end)
        .order_by(audit_leaves.c.position)
    )


@prepared
def _nodes(level: int, first: int, end: int) -> Select[Any]:
    return (
        select(audit_nodes.c.hash)
        .where(audit_nodes.c.level == level, audit_nodes.c.number >= first, audit_nodes.c.number < end)
        .order_by(audit_nodes.c.number)
    )


def unchained(connection: Connection, *, everything: bool = False) -> list[Row]:
    """Events that have no place yet, by id, at most BATCH_SIZE; everything: also those far below the last placed."""
    last = int(_last_chained.value(connection) or 0)
    if everything:
        last = 0
    elif connection.dialect.name == "postgresql":
        last = max(last - BACK_ON_POSTGRESQL, 0)
    return _unchained.rows(connection, last)


@prepared
def _last_chained() -> Select[Any]:
    return select(func.max(audit_leaves.c.event_id))


@prepared
def _unchained(after: int) -> Select[Any]:
    placed = select(audit_leaves.c.event_id).where(audit_leaves.c.event_id == events.c.id).exists()
    return select(events).where(events.c.id > after, ~placed).order_by(events.c.id).limit(BATCH_SIZE)


def chain(connection: Connection, tree: audit_tree.Frontier, read: Sequence[Row]) -> None:
    """Give events the next places, in their order, and add them to `tree`."""
    leaves = []
    start = tree.size
    for event in read:
        hashed = audit_tree.leaf(text_of(event))
        seal = _seal(connection, tree.size, event["id"], hashed)
        leaves.append({"position": tree.size, "event_id": event["id"], "hash": hashed, "seal": seal})
        tree.add(hashed)
    _inserting(audit_leaves).run_many(connection, leaves)
    part = whole(connection)
    for level in range(LEVELS, tree.size.bit_length(), LEVELS):
        numbers = range(start >> level, tree.size >> level)
        nodes = [{"level": level, "number": one, "hash": _grown(part, level, one)} for one in numbers]
        _inserting(audit_nodes).run_many(connection, nodes)


def _grown(part: audit_tree.Whole, level: int, number: int) -> bytes:
    """The hash of a part that has just become whole, by its two halves."""
    return audit_tree.node(part(level - 1, 2 * number), part(level - 1, 2 * number + 1))


class TreeParts:
    """Makes the hashes of whole parts from the hashes of records, to compare them with those that are kept."""

    def __init__(self) -> None:
        self._open: list[list[bytes]] = [[]]  # by kept level: the hashes that make no whole part above yet
        self._numbers = [0]
        self._made: list[tuple[int, int, bytes]] = []

    def add(self, hashed: bytes) -> None:
        """Add a record by its hash."""
        self._open[0].append(hashed)
        depth = 0
        while len(self._open[depth]) == 1 << LEVELS:
            full, self._open[depth] = self._open[depth], []
            above = _above(full)
            if depth + 1 == len(self._open):
                self._open.append([])
                self._numbers.append(0)
            self._made.append(((depth + 1) * LEVELS, self._numbers[depth], above))
            self._numbers[depth] += 1
            depth += 1
            self._open[depth].append(above)

    def fit(self, connection: Connection) -> bool:
        """Whether the parts that became whole since the last call are kept with the same hashes."""
        made, self._made = self._made, []
        return all(_nodes.values(connection, level, number, number + 1) == [hashed] for level, number, hashed in made)


@cache
def _inserting(table: Table) -> Statement:
    return Statement(lambda: insert(table).values({column.name: placeholder(column) for column in table.c}))


def _seal(connection: Connection, position: int, event_id: int, hashed: bytes) -> bytes:
    return seals_of(connection).mac(f"audit leaf {position} {event_id} ".encode() + hashed)


def put_checkpoint(
    connection: Connection, size: int, signed: SignedCheckpoint, at: datetime, *, instead_of: int | None
) -> None:
    """Keep a checkpoint; instead_of: the size of one to delete."""
    if instead_of is not None:
        connection.execute(delete(audit_checkpoints).where(audit_checkpoints.c.size == instead_of))
    _inserting(audit_checkpoints).run(
        connection, {"size": size, "text": signed.text, "signature": signed.signature, "at": at}
    )


def forget(connection: Connection) -> None:
    """Delete all places, hashes and checkpoints, so that the log begins anew with the events there are."""
    for table in (audit_checkpoints, audit_nodes, audit_leaves):
        connection.execute(delete(table))


def place_of(connection: Connection, event_id: int) -> tuple[int, bytes] | None:
    """An event's place and its hash there; None if it has no place yet."""
    row = _place_of.row(connection, event_id)
    return None if row is None else (int(row["position"]), bytes(row["hash"]))


@prepared
def _place_of(event_id: int) -> Select[Any]:
    return select(audit_leaves).where(audit_leaves.c.event_id == event_id)


def places(connection: Connection, first: int) -> Iterator[ChainedEvent]:
    """The places from `first` on with their events, at most BATCH_SIZE."""
    return _chained(connection, _places.rows(connection, first))


def places_of(connection: Connection, action: str) -> Iterator[ChainedEvent]:
    """The places of all events with an action."""
    return _chained(connection, _places_of.rows(connection, action))


def newest_event(connection: Connection) -> int:
    """The highest id of an event that has a place; 0 if none has."""
    return int(_last_chained.value(connection) or 0)


def _chained(connection: Connection, rows: Iterable[Row]) -> Iterator[ChainedEvent]:
    for row in rows:
        event_id, hashed = int(row["leaf_event_id"]), bytes(row["leaf_hash"])
        seal = _seal(connection, int(row["leaf_position"]), event_id, hashed)
        yield ChainedEvent(
            position=int(row["leaf_position"]),
            event_id=event_id,
            hash=hashed,
            record=None if row["id"] is None else {column.name: row[column.name] for column in COLUMNS},
            sound=seal == row["leaf_seal"],
        )


def _with_events() -> Select[Any]:
    leaf = [column.label(f"leaf_{column.name}") for column in audit_leaves.c]
    joined = audit_leaves.outerjoin(events, events.c.id == audit_leaves.c.event_id)
    return select(*leaf, *COLUMNS).select_from(joined)


@prepared
def _places_of(action: str) -> Select[Any]:
    return _with_events().where(events.c.action == action).order_by(audit_leaves.c.position)


@prepared
def _places(first: int) -> Select[Any]:
    return _with_events().where(audit_leaves.c.position >= first).order_by(audit_leaves.c.position).limit(BATCH_SIZE)
