"""Finds the endpoint of a path by Starlette's patterns, without trying each of them; must know no API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from re import Pattern
from typing import Any, Generic, TypeVar

from starlette.convertors import Convertor
from starlette.routing import compile_path

T = TypeVar("T")

REST = ":path}"
MAX_KEPT, LONGEST_KEPT = 1_000, 128
"""How many paths are cached with their endpoints, and the length in characters of the longest one."""


@dataclass(frozen=True, slots=True)
class _Pattern(Generic[T]):
    regex: Pattern[str]
    convertors: Mapping[str, Convertor[Any]]
    target: T


class Paths(Generic[T]):
    """Templates such as /servers/{serverId} in order; a name in braces stands for one segment.

    At the end {name:path} stands for all that is left, with slashes, if no other template matches. Of the others only
    those are tried that have as many segments as the path and begin with the same one: one or two of a hundred.
    """

    def __init__(self, templates: Iterable[tuple[str, T]]) -> None:
        self._rest: list[tuple[str, _Pattern[T]]] = []
        self._open: dict[int, list[_Pattern[T]]] = {}
        self._by_first: dict[tuple[int, str], list[_Pattern[T]]] = {}
        self._remembered: dict[str, tuple[T, dict[str, Any]]] = {}
        for template, target in templates:
            regex, convertors = _compiled(template)
            pattern, count, first = _Pattern(regex, convertors, target), template.count("/"), _first(template)
            if template.endswith(REST):
                self._rest.append((first, pattern))
            elif first.startswith("{"):
                self._open.setdefault(count, []).append(pattern)
                for (others, _), patterns in self._by_first.items():
                    if others == count:
                        patterns.append(pattern)
            else:
                patterns = self._by_first.setdefault((count, first), list(self._open.get(count, ())))
                patterns.append(pattern)

    def find(self, path: str) -> tuple[T, dict[str, Any]] | None:
        """The target of the first template that matches a path, and the values of its names; None for no match."""
        known = self._remembered.get(path)
        if known is None:
            known = self._find(path)
            if known is not None and len(path) <= LONGEST_KEPT:
                if len(self._remembered) >= MAX_KEPT:
                    self._remembered.clear()
                self._remembered[path] = known
        return None if known is None else (known[0], known[1].copy())

    def _find(self, path: str) -> tuple[T, dict[str, Any]] | None:
        count = path.count("/")
        for pattern in self._by_first.get((count, _first(path))) or self._open.get(count) or ():
            match = pattern.regex.match(path)
            if match:
                texts = match.groupdict()
                return pattern.target, {name: pattern.convertors[name].convert(text) for name, text in texts.items()}
        for first, pattern in self._rest:
            match = pattern.regex.match(path) if first == _first(path) else None
            if match:
                return pattern.target, match.groupdict()
        return None


@cache  # APIs share templates, and their number is fixed
def _compiled(template: str) -> tuple[Pattern[str], Mapping[str, Convertor[Any]]]:
    if ":" in template.removesuffix(REST):
        raise ValueError(f"{template}: a name has no convertor, except {{name:path}} at the end")
    regex, _, convertors = compile_path(template)
    return regex, convertors


def _first(path: str) -> str:
    return path[1:].partition("/")[0]
