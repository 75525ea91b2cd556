"""Notes the statements that are sent to the database meanwhile, for tests that count them; must change none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from keyrack.store.engine import execute


@contextmanager
def each_prepared(note: Callable[[str, Any], object]) -> Iterator[None]:
    """Calls note with each prepared statement, and its values, before it runs."""
    execute.listeners.append(note)
    try:
        yield
    finally:
        execute.listeners.remove(note)


@contextmanager
def prepared_statements(containing: str = "") -> Iterator[list[str]]:
    """The prepared statements that have this text in them; one run with many values is one."""
    sent: list[str] = []
    with each_prepared(lambda sql, _values: sent.append(sql) if containing in sql else None):
        yield sent


@contextmanager
def each_statement(note: Callable[[str, Any], object]) -> Iterator[None]:
    """As each_prepared, with the statements that SQLAlchemy runs itself."""

    def note_other(_connection: Any, _cursor: Any, sql: str, values: Any, *_rest: Any) -> None:
        note(sql, values)

    event.listen(Engine, "before_cursor_execute", note_other)
    try:
        with each_prepared(note):
            yield
    finally:
        event.remove(Engine, "before_cursor_execute", note_other)


@contextmanager
def all_statements() -> Iterator[list[str]]:
    """As prepared_statements, with those that SQLAlchemy runs itself."""
    sent: list[str] = []
    with each_statement(lambda sql, _values: sent.append(sql)):
        yield sent
