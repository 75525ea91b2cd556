"""Values of rows as the text that is sealed, the same for both databases; must know no table."""

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
"""A row's values as text, one way for both databases; bytes and the text of their digits are the same here."""
encode_typed = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_typed, check_circular=False).encode
"""The same for what is sealed. It raises TypeError for bytes, which SQLite lets others write in place of a text: with
as_digits for the columns that hold bytes, no row has the seal of one that says the same in another type.
"""


def as_digits(value: Any) -> str | None:
    """Bytes as text. Raises TypeError for anything else."""
    if value is None:
        return None
    if not isinstance(value, bytes | memoryview):
        raise TypeError(f"this column holds bytes, no {type(value).__name__}")
    return bytes(value).hex()
