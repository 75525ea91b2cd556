"""What several questions call in force or frozen; must ask the database nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_


def in_force(column: Any, at: datetime) -> ColumnElement[bool]:
    """A condition: there is no end, or it is still to come."""
    return or_(column.is_(None), column > at)


def is_frozen(frozen_at: datetime | None, confirmed_at: datetime | None, created_at: datetime) -> bool:
    """Whether a key opens no new session: it was frozen, and neither confirmed nor entered since."""
    return frozen_at is not None and max(confirmed_at or created_at, created_at) <= frozen_at
