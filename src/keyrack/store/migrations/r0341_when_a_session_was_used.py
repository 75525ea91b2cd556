"""When a session of a browser was used last is under its seal, in a column of its own."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0341"
down_revision = "0340"


def upgrade() -> None:
    """Add the column, empty: that breaks no seal there is, and such sessions end by the other time."""
    op.add_column("web_sessions", Column("used_at", BigInteger))
