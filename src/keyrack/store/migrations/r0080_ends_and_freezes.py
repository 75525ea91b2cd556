"""Ends that are announced and renewed, keys that are not taken again, break glass, and freezes."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, LargeBinary, String, Text, text

from keyrack.store.tables.columns import Json

revision = "0080"
down_revision = "0115"

UNNOTICED = text("noticed_at IS NULL AND expires_at IS NOT NULL")
NEW: dict[str, tuple[tuple[str, Any], ...]] = {
    "credentials": (
        ("noticed_at", BigInteger),
        ("break_glass", Boolean),
        ("confirmed_at", BigInteger),
        ("frozen_at", BigInteger),
    ),
    "user_keys": (
        ("expires_at", BigInteger),
        ("noticed_at", BigInteger),
        ("confirmed_at", BigInteger),
        ("frozen_at", BigInteger),
    ),
    "grants": (("noticed_at", BigInteger), ("break_glass", Boolean)),
    "servers": (("frozen_at", BigInteger),),
}


def upgrade() -> None:
    """Add columns, empty in all rows there are, and the tables of expired keys and of freezes."""
    for table, columns in NEW.items():
        for name, kind in columns:
            op.add_column(table, Column(name, kind))
    op.create_index("ix_user_keys_expires_at", "user_keys", ["expires_at"])
    for table in ("credentials", "user_keys", "grants"):
        op.create_index(
            f"ix_{table}_unnoticed", table, ["expires_at"], sqlite_where=UNNOTICED, postgresql_where=UNNOTICED
        )
    op.create_table(
        "expired_keys",
        Column("workspace_id", Integer, ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True),
        Column("fingerprint", String(64), primary_key=True),
        Column("expired_at", BigInteger, nullable=False),
        Column("seal", LargeBinary(32)),
    )
    op.create_index("ix_expired_keys_expired_at", "expired_keys", ["expired_at"])
    op.create_table(
        "freezes",
        Column("id", Integer, primary_key=True),
        Column("workspace_id", Integer, ForeignKey("workspaces.id", ondelete="CASCADE"), nullable=False),
        Column("user_id", Integer),
        Column("server_id", Integer),
        Column("reason", Text, nullable=False),
        Column("asked_by", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("keys", Integer, nullable=False),
        Column("revisions", Json, nullable=False),
        Column("ended_at", BigInteger),
        Column("ended_by", Text),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_freezes_workspace_id_id", "freezes", ["workspace_id", "id"])
