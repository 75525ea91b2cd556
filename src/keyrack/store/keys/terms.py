"""What several questions call in force or frozen; must ask the database nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal_column

from keyrack.store.tables import tokens
from keyrack.store.tables.columns import Moment

_NO_END = literal_column(str(2**63 - 1), Moment)
"""Later than each end, as the column holds it: see in_force."""


def in_force(column: Any, at: datetime) -> ColumnElement[bool]:
    """A condition: there is no end, or it is still to come.

    No `OR`: nearly every row meets it, and SQLite from about 3.46 on looks for both halves by an index of ends, which
    reads the whole table, where the index that the rest of the question names has ten rows.
    """
    return func.coalesce(column, _NO_END) > at


def token_in_force(at: datetime) -> ColumnElement[bool]:
    """The condition that model.Token.is_in_force is, of a row of `tokens`."""
    return and_(tokens.c.revoked_at.is_(None), in_force(tokens.c.expires_at, at))


def is_frozen(frozen_at: datetime | None, confirmed_at: datetime | None, created_at: datetime) -> bool:
    """Whether a key opens no new session: it was frozen, and neither confirmed nor entered since."""
    return frozen_at is not None and max(confirmed_at or created_at, created_at) <= frozen_at
