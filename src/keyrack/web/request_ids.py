"""The id of the request that a line of the log belongs to; must be set by web/server.py alone."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

current: ContextVar[str] = ContextVar("request_id", default="")


def told(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog's: names the request that a line belongs to, if it belongs to one."""
    if request_id := current.get():
        event.setdefault("request_id", request_id)
    return event
