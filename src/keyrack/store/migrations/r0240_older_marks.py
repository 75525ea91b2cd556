"""Marks of older revisions are kept, so that a host which comes back from one of them is known."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String

revision = "0240"
down_revision = "0235"


def upgrade() -> None:
    """Create it, with the marks that servers have now."""
    op.create_table(
        "older_marks",
        Column(
            "server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
        ),
        Column("revision", BigInteger, primary_key=True, autoincrement=False),
        Column("marks", String(512), nullable=False),
    )
    op.execute(
        "INSERT INTO older_marks (server_id, revision, marks)"
        " SELECT id, revision, lineage FROM servers WHERE lineage <> ''"
    )
