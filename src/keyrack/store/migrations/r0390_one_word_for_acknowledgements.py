"""When a host or Git endpoint acknowledged what a row asks of it has one name in every table (decision 383)."""

from __future__ import annotations

import sqlalchemy
from alembic import op

revision = "0390"
down_revision = "0375"

# Table, the column's former name, that of its index, and what else the index is over.
RENAMED = (
    ("credentials", "delivered_at", "undelivered", ["server_id", "revision"]),
    ("revocations", "confirmed_at", "unconfirmed", ["server_id", "revision"]),
    ("offboarding_hosts", "confirmed_at", "unconfirmed", ["server_id", "revision"]),
    ("offboarding_git", "confirmed_at", "unconfirmed", ["endpoint_id"]),
)


def upgrade() -> None:
    """Rename the columns, and the counts of a day that bore one's name."""
    waiting = sqlalchemy.text("acknowledged_at IS NULL")
    for table, name, index, columns in RENAMED:
        op.drop_index(f"ix_{table}_{index}", table)
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {name} TO acknowledged_at")
        op.create_index(f"ix_{table}_unacknowledged", table, columns, sqlite_where=waiting, postgresql_where=waiting)
    op.execute(
        "UPDATE daily_tallies SET what = replace(what, 'delivered', 'acknowledged') WHERE what LIKE 'delivered %'"
    )
