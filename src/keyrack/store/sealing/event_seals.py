"""Seals of events: show which events Keyrack wrote, so that others cannot enter any; must write no event.

A seal covers all columns of an event but the id, which the database gives later, and a random number. Because of that
number no two events of ours have the same seal, so a copied event is found by it.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, select

from keyrack.store import instance_facts
from keyrack.store.engine.prepared import prepared
from keyrack.store.sealing.canonical_json import encode_typed
from keyrack.store.sealing.seals import SEAL, is_ours, seals_of
from keyrack.store.tables import events

COLUMNS = tuple(column for column in events.c if column.name != SEAL)
"""The columns of an event without its seal."""
_SEALED = tuple(sorted(column.name for column in COLUMNS if column.name != "id"))
_NUMBER = 8
_BEGUN = "events are sealed after"


def of(connection: Connection, event: Mapping[str, Any], number: bytes | None = None) -> bytes:
    """The seal of an event; its details as they are read from JSON. number: its random number, a new one for None."""
    fields = {name: event[name] for name in _SEALED if event[name] is not None}
    number = secrets.token_bytes(_NUMBER) if number is None else number
    return number + seals_of(connection).mac(b"event " + number + encode_typed(fields).encode())


def sealed(connection: Connection, event: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an event to be written, with its seal."""
    details = event["details"]
    written = {**event, "details": details if _is_as_kept(details) else _as_kept(details)}
    written[SEAL] = of(connection, written)
    return written


def sealed_each(connection: Connection, events: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The same for many events. Details that successive events share, as one object, are converted once."""
    numbers = secrets.token_bytes(_NUMBER * len(events))
    last: Any = None
    details: dict[str, Any] = {}
    for at, event in enumerate(events):
        if event["details"] is not last:
            last = event["details"]
            details = last if _is_as_kept(last) else _as_kept(last)
        written = {**event, "details": details}
        yield {**written, SEAL: of(connection, written, numbers[at * _NUMBER : (at + 1) * _NUMBER])}


_TEXT = frozenset((str,))
_PLAIN = frozenset((type(None), str, int, bool))


def _is_as_kept(value: Any) -> bool:
    """Whether a value is the same after it was written as JSON and read again; false only where that is not certain."""
    kind = type(value)
    if kind is dict:
        return _TEXT.issuperset(map(type, value)) and _are_as_kept(value.values())
    if kind is list or kind is tuple:
        return _are_as_kept(value)
    return kind in _PLAIN


def _are_as_kept(values: Collection[Any]) -> bool:
    return _PLAIN.issuperset(map(type, values)) or all(map(_is_as_kept, values))


def _as_kept(details: Mapping[str, Any]) -> dict[str, Any]:
    """Details as they are after they were written as JSON and read again."""
    kept: dict[str, Any] = json.loads(json.dumps(dict(details)))
    return kept


def holds(connection: Connection, event: Mapping[str, Any], begun: int) -> bool:
    """Whether Keyrack wrote an event; begun: the id of the last event without a seal, as begun() returns it."""
    seal = event[SEAL]
    if seal is None:
        return bool(event["id"] <= begun)
    return is_ours(seal, lambda: of(connection, event, seal[:_NUMBER]))


def begun(connection: Connection) -> int:
    """The id of the last event from before events had seals; 0 where there is none, or the note of it was altered."""
    number, _, seal = (instance_facts.noted(connection, _BEGUN) or "").partition(" ")
    is_made_here = number.isascii() and number.isdecimal() and hmac.compare_digest(seal, _begun(connection, number))
    return int(number) if is_made_here else 0


def begin(connection: Connection) -> None:
    """Note that the present events have no seals; every later event must have one."""
    last = str(connection.execute(select(func.max(events.c.id))).scalar() or 0)
    instance_facts.note(connection, _BEGUN, f"{last} {_begun(connection, last)}")


def _begun(connection: Connection, number: str) -> str:
    return seals_of(connection).mac(f"events are sealed after {number}".encode()).hex()


def copied(connection: Connection) -> int | None:
    """The id of the first event that is a copy of an older one, None where there is none; reads all events."""
    on_sqlite = connection.dialect.name == "sqlite"
    if on_sqlite:
        # The query sorts all seals, some 70 bytes each: in a temporary file, where they do not fit into memory.
        connection.exec_driver_sql("PRAGMA temp_store = FILE")
    try:
        event_id: int | None = _copied.value(connection)
    finally:
        if on_sqlite:
            connection.exec_driver_sql("PRAGMA temp_store = MEMORY")
    return event_id


@prepared
def _copied() -> Select[Any]:
    newest = func.max(events.c.id)
    several = select(newest).where(events.c.seal.is_not(None)).group_by(events.c.seal).having(func.count() > 1)
    return several.order_by(newest).limit(1)
