"""When a key or a grant got the end that it has, so that the notice before it fits how long it lasts."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0355"
down_revision = "0341"


def upgrade() -> None:
    """Add the column, empty: that breaks no seal there is, and what was made before counts from its making."""
    for table in ("credentials", "user_keys", "grants"):
        op.add_column(table, Column("renewed_at", BigInteger))
