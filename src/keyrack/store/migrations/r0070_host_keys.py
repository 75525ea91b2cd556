"""Host keys of servers, as their agents tell them."""

from __future__ import annotations

import sqlalchemy
from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, LargeBinary, String, Text

revision = "0070"
down_revision = "0090"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "host_keys",
        Column("id", Integer, nullable=False),
        Column("server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), nullable=False),
        Column("public_key", Text, nullable=False),
        Column("fingerprint", String(64), nullable=False),
        Column("port", Integer, nullable=False),
        Column("shown", Boolean, nullable=False),
        Column("confirmed", Boolean, nullable=False),
        Column("first_at", BigInteger, nullable=False),
        Column("confirmed_at", BigInteger),
        Column("confirmed_by", Text),
        Column("seal", LargeBinary(32), nullable=False),
        sqlalchemy.PrimaryKeyConstraint("id"),
        sqlalchemy.UniqueConstraint("server_id", "fingerprint"),
        sqlite_autoincrement=True,
    )
