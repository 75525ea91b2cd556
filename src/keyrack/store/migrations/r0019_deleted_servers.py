"""Servers that were deleted and whose hosts must still be told, with the keys that these were given."""

from __future__ import annotations

import sqlalchemy
from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Text

revision = "0019"
down_revision = "0018"


def _of(column: str, name: str) -> sqlalchemy.ForeignKey:
    return sqlalchemy.ForeignKey(column, name=name, ondelete="CASCADE")


def upgrade() -> None:
    """Add two tables."""
    op.create_table(
        "deleted_servers",
        Column("server_id", Integer, nullable=False, autoincrement=False),
        Column("workspace_id", Integer, _of("workspaces.id", "fk_deleted_servers_workspace_id"), nullable=False),
        Column("host", String(40), nullable=False),
        Column("name", String(255), nullable=False),
        Column("address", String(255), nullable=False),
        Column("agent_secret_hash", LargeBinary(32), nullable=False),
        Column("revision", BigInteger, nullable=False),
        Column("take_away", sqlalchemy.JSON, nullable=False),
        Column("deleted_at", BigInteger, nullable=False),
        Column("deleted_by", Text, nullable=False),
        Column("acknowledged_at", BigInteger),
        Column("seal", LargeBinary(32), nullable=False),
        sqlalchemy.PrimaryKeyConstraint("server_id", name="pk_deleted_servers"),
        sqlalchemy.UniqueConstraint("host", name="uq_deleted_servers_host"),
        sqlalchemy.UniqueConstraint("agent_secret_hash", name="uq_deleted_servers_agent_secret_hash"),
    )
    op.create_index("ix_deleted_servers_workspace_id_server_id", "deleted_servers", ["workspace_id", "server_id"])
    op.create_table(
        "deleted_server_keys",
        Column(
            "server_id", Integer, _of("deleted_servers.server_id", "fk_deleted_server_keys_server_id"), nullable=False
        ),
        Column("fingerprint", String(64), nullable=False),
        Column("public_key", Text, nullable=False),
        sqlalchemy.PrimaryKeyConstraint("server_id", "fingerprint", name="pk_deleted_server_keys"),
    )
    op.create_index("ix_deleted_server_keys_fingerprint", "deleted_server_keys", ["fingerprint"])
