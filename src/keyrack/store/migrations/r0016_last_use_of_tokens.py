"""When a token was last used, to the hour, so that a list of tokens tells which one nobody needs."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0016"
down_revision = "0011"


def upgrade() -> None:
    """Add a column."""
    op.add_column("tokens", Column("last_used_at", BigInteger))
