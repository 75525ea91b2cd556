"""Writes numbers with their nouns, for whatever people read; must know no noun."""

from __future__ import annotations


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: "1 host", "12 hosts"; many: where it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
