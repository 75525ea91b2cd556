"""What finds the requests that are open: there are few, however many there were."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0083"
down_revision = "0070"

OPEN = text("state = 'approved'")


def upgrade() -> None:
    """Add an index."""
    op.create_index(
        "ix_access_requests_open", "access_requests", ["grant_id"], sqlite_where=OPEN, postgresql_where=OPEN
    )
