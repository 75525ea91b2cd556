"""What it takes to notice that the database went back, and to keep refused what hosts refused before."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Integer, String, Text, text

revision = "0011"
down_revision = "0019"


def upgrade() -> None:
    """Add it. Revisions of before have no mark: a host that obeys one is believed by its number alone."""
    op.add_column("servers", Column("lineage", String(512), nullable=False, server_default=text("''")))
    op.add_column("servers", Column("applied_lineage", String(8), nullable=False, server_default=text("''")))
    op.add_column("servers", Column("told_lineage", String(8), nullable=False, server_default=text("''")))
    op.add_column("servers", Column("went_back_at", BigInteger))
    op.add_column("servers", Column("compared_at", BigInteger))
    op.create_table(
        "told_documents",
        Column(
            "server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
        ),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("text", Text, nullable=False),
    )
    op.create_table(
        "held_back",
        Column("id", Integer, primary_key=True, nullable=False),
        Column("server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), nullable=False),
        Column("kind", String(8), nullable=False),
        Column("username", String(64), nullable=False),
        Column("public_key", Text, nullable=False),
        Column("fingerprint", String(64), nullable=False),
        Column("options", JSON, nullable=False),
        Column("until", BigInteger),
        Column("name", Text, nullable=False),
        Column("since", BigInteger, nullable=False),
        Column("revision", BigInteger, nullable=False),
        Column("decided_at", BigInteger),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_held_back_server_id", "held_back", ["server_id"])
    op.create_index("ix_held_back_fingerprint", "held_back", ["fingerprint"])
