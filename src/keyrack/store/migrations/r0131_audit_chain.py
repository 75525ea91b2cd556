"""Leaves, parts of the tree and checkpoints of the audit log; what there is is chained by the running service."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, Text

revision = "0131"
down_revision = "0130"


def upgrade() -> None:
    """Create them, empty."""
    op.create_table(
        "audit_leaves",
        Column("position", BigInteger, primary_key=True, autoincrement=False, nullable=False),
        Column("event_id", BigInteger, nullable=False, unique=True),
        Column("hash", LargeBinary(32), nullable=False),
        Column("seal", LargeBinary(32), nullable=False),
    )
    op.create_table(
        "audit_nodes",
        Column("level", Integer, primary_key=True, autoincrement=False, nullable=False),
        Column("number", BigInteger, primary_key=True, autoincrement=False, nullable=False),
        Column("hash", LargeBinary(32), nullable=False),
    )
    op.create_table(
        "audit_checkpoints",
        Column("size", BigInteger, primary_key=True, autoincrement=False, nullable=False),
        Column("text", Text, nullable=False),
        Column("signature", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
    )
