"""Canonical JSON of rows' values, to be sealed and hashed: the same text for both databases; must know no table."""

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
"""Canonical JSON of a row's values, in which bytes and the text of their hexadecimal digits are the same."""
encode_typed = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_typed, check_circular=False).encode
"""Canonical JSON for what is sealed. It raises TypeError for bytes, which SQLite lets others write in place of a text:
with as_hex for the columns that hold bytes, no row has the seal of one that says the same in another type.
"""


def as_hex(value: Any) -> str | None:
    """Bytes as text, None as it is. Raises TypeError for anything else."""
    if value is None:
        return None
    if not isinstance(value, bytes | memoryview):
        raise TypeError(f"this column holds bytes, no {type(value).__name__}")
    return bytes(value).hex()
