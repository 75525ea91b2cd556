"""What "in force" and "frozen" mean in questions; must ask the database nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal_column

from keyrack.store.tables import tokens
from keyrack.store.tables.columns import Moment

_NO_END = literal_column(str(2**63 - 1), Moment)
"""In place of no end: later than any end."""


def in_force(column: Any, at: datetime) -> ColumnElement[bool]:
    """A condition: the column has no end, or one after `at`.

    Not written with OR: SQLite from about 3.46 on would use the index of ends for both halves, which nearly every row
    meets, and read the whole table instead of the few rows that the rest of the question names.
    """
    return func.coalesce(column, _NO_END) > at


def token_in_force(at: datetime) -> ColumnElement[bool]:
    """model.Token.is_in_force as a condition on `tokens`."""
    return and_(tokens.c.revoked_at.is_(None), in_force(tokens.c.expires_at, at))


def is_frozen(frozen_at: datetime | None, confirmed_at: datetime | None, created_at: datetime) -> bool:
    """Whether a key opens no new session: it was frozen, and neither confirmed nor added since."""
    return frozen_at is not None and max(confirmed_at or created_at, created_at) <= frozen_at
