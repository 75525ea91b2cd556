"""Ids of requests, and the one that a line of the log belongs to, which web/server.py alone may set."""

from __future__ import annotations

import random
import secrets
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

current: ContextVar[str] = ContextVar("request_id", default="")

# They need not be secret, and the system's random numbers take ten times as long.
_random = random.Random(secrets.randbits(256))  # noqa: S311


def fresh() -> str:
    """A new id."""
    return f"{_random.getrandbits(128):032x}"


def add_request_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog's: names the request that a line belongs to, if it belongs to one."""
    if request_id := current.get():
        event.setdefault("request_id", request_id)
    return event
