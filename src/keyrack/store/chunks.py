"""Splits values into lists small enough for one statement; must ask nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def chunks(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """The values in their order, in lists of `size`, of which the last may be shorter; no list for no values."""
    listed = list(values)
    return (listed[start : start + size] for start in range(0, len(listed), size))
