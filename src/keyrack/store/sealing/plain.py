"""Values of rows as the text that is sealed, the same for both databases; must know no table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from keyrack.store.tables.columns import EPOCH, MICROSECOND


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - EPOCH) // MICROSECOND
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no column holds {type(value).__name__}")


encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=_plain, check_circular=False).encode
"""A row's values as text, one way for both databases: what is sealed is this text."""
