"""Keys that were found on hosts, and how stale a host's document may get."""

from __future__ import annotations

import sqlalchemy
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add two columns with defaults, and one table."""
    op.add_column(
        "servers", sqlalchemy.Column("stale_after_seconds", sqlalchemy.Integer, nullable=False, server_default="0")
    )
    op.add_column(
        "servers", sqlalchemy.Column("stale_then", sqlalchemy.String(16), nullable=False, server_default="keep")
    )
    op.create_table(
        "found_keys",
        sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
        sqlalchemy.Column(
            "server_id", sqlalchemy.Integer, sqlalchemy.ForeignKey("servers.id", ondelete="CASCADE"), nullable=False
        ),
        sqlalchemy.Column("username", sqlalchemy.String(64), nullable=False),
        sqlalchemy.Column("path", sqlalchemy.String(1024), nullable=False),
        sqlalchemy.Column("kind", sqlalchemy.String(16), nullable=False),
        sqlalchemy.Column("line", sqlalchemy.Integer, nullable=False),
        sqlalchemy.Column("fingerprint", sqlalchemy.String(64), nullable=False),
        sqlalchemy.Column("key_type", sqlalchemy.String(64), nullable=False),
        sqlalchemy.Column("public_key", sqlalchemy.Text, nullable=False),
        sqlalchemy.Column("options", sqlalchemy.Text, nullable=False),
        sqlalchemy.Column("comment", sqlalchemy.Text, nullable=False),
        sqlalchemy.Column("problem", sqlalchemy.Text, nullable=False),
        sqlalchemy.Column("in_force", sqlalchemy.Boolean, nullable=False),
        sqlalchemy.Column("state", sqlalchemy.String(16), nullable=False),
        sqlalchemy.Column("found_at", sqlalchemy.BigInteger, nullable=False),
        sqlalchemy.Column("seen_at", sqlalchemy.BigInteger, nullable=False),
        sqlalchemy.UniqueConstraint("server_id", "username", "path", "fingerprint"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_found_keys_fingerprint", "found_keys", ["fingerprint"])
