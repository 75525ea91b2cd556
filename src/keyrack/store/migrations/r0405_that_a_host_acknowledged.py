"""That a server's host has acknowledged something since it was enrolled stands under the row's seal (decision 413)."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0405"
down_revision = "0390"


def upgrade() -> None:
    """Add the column, empty in all rows there are: it is set when their hosts acknowledge something the next time."""
    op.add_column("servers", Column("first_applied_at", BigInteger))
