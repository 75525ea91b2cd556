"""Canonical JSON of rows' values for seals and hashes: the same text on both databases; must know no table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from keyrack.store.tables.columns import EPOCH, MICROSECOND


def _typed(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - EPOCH) // MICROSECOND
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no column holds {type(value).__name__}")


def _plain(value: Any) -> Any:
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else _typed(value)


encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain, check_circular=False).encode
"""Canonical JSON of a row's values. Bytes become their hexadecimal digits, so they equal a text of these digits."""
encode_typed = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_typed, check_circular=False).encode
"""Canonical JSON for seals. It raises TypeError for bytes, which SQLite accepts in a column of text; columns of bytes
go through as_hex first. So no row has the same seal as one with a value of another type.
"""


def as_hex(value: Any) -> str | None:
    """Bytes as hexadecimal digits, None as None. Raises TypeError for anything else."""
    if value is None:
        return None
    if not isinstance(value, bytes | memoryview):
        raise TypeError(f"this column holds bytes, no {type(value).__name__}")
    return bytes(value).hex()
