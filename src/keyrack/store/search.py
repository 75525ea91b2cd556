"""Conditions that look for a part of a text in any case, on both databases alike; must know no table.

SQLite's LIKE and lower() know the cases of ASCII letters alone, and a function of Python's would hold up all threads at
each row. So a text with other letters is looked for by GLOB, with each letter in all its cases.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, Boolean, Dialect, Text, bindparam, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

LONGEST = 4096
"""Characters of a text that is looked for; SQLite refuses patterns beyond 50,000 bytes."""


class _Pattern(TypeDecorator[str]):
    """A text as the pattern of what contains it; NULL, which nothing matches, for one that is too long."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or len(value) > LONGEST:
            return None
        if dialect.name == "sqlite" and not value.isascii():
            return f"*{''.join(map(_in_any_case, value))}*"
        return f"%{value.replace('/', '//').replace('%', '/%').replace('_', '/_')}%"


def _in_any_case(character: str) -> str:
    """The part of a GLOB pattern that stands for a character in any case, or for what GLOB has a meaning for."""
    cases = {character, character.lower(), character.upper()}
    alike = "".join(sorted(one for one in cases if len(one) == 1))
    return f"[{alike}]" if len(alike) > 1 or alike in "*?[" else alike


class _Contains(FunctionElement[bool]):
    type = Boolean()
    inherit_cache = True


@compiles(_Contains, "sqlite")
def _contains_on_sqlite(element: _Contains, compiler: SQLCompiler, **options: Any) -> str:
    column, sought = (compiler.process(one, **options) for one in element.clauses)
    by_glob, by_like = f"{column} GLOB {sought}", f"{column} LIKE {sought} ESCAPE '/'"
    return f"CASE WHEN {sought} GLOB '[*]*' THEN {by_glob} ELSE {by_like} END"


@compiles(_Contains, "postgresql")
def _contains_on_postgresql(element: _Contains, compiler: SQLCompiler, **options: Any) -> str:
    column, sought = (compiler.process(one, **options) for one in element.clauses)
    return f"lower({column}) LIKE lower({sought}) ESCAPE '/'"


def contains(column: Any, text: str | BindParameter[str]) -> Any:
    """A condition: the column holds a text, in any case; % and _ stand for themselves. text: may be the argument of a
    prepared question.
    """
    if isinstance(text, BindParameter):
        return _Contains(column, bindparam(text.key, type_=_Pattern()))
    return _Contains(column, literal(text, _Pattern()))
