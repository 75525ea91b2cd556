"""Requests for access with their approvals and rules, and proofs of possession."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)

revision = "0055"
down_revision = "0050"


def _of(target: str) -> ForeignKey:
    return ForeignKey(f"{target}.id", ondelete="CASCADE")


def _seal() -> Column[Any]:
    return Column("seal", LargeBinary(32))


def upgrade() -> None:
    """Create the tables."""
    _requests()
    _keys()


def _requests() -> None:
    op.create_table(
        "access_requests",
        Column("id", Integer, primary_key=True),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False),
        Column("user_id", Integer, _of("users"), nullable=False),
        Column("server_id", Integer, _of("servers")),
        Column("tag", String(64)),
        Column("system_user", String(32), quote=True, nullable=False),
        Column("seconds", Integer),
        Column("until", BigInteger),
        Column("reason", Text, nullable=False),
        Column("state", String(16), nullable=False),
        Column("approvers", Integer, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("pending_until", BigInteger, nullable=False),
        Column("decided_at", BigInteger),
        Column("decided_by", Text),
        Column("grant_id", Integer),
        _seal(),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_access_requests_user_id", "access_requests", ["user_id"])
    op.create_index("ix_access_requests_server_id", "access_requests", ["server_id"])
    op.create_index("ix_access_requests_workspace_id_id", "access_requests", ["workspace_id", "id"])
    pending = text("state = 'pending'")
    op.create_index(
        "ix_access_requests_pending",
        "access_requests",
        ["pending_until"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    op.create_table(
        "access_request_approvals",
        Column("request_id", Integer, _of("access_requests"), primary_key=True),
        Column("approver", String(255), primary_key=True),
        Column("user_id", Integer, _of("users")),
        Column("approved_at", BigInteger, nullable=False),
        _seal(),
    )
    op.create_index("ix_access_request_approvals_user_id", "access_request_approvals", ["user_id"])
    op.create_table(
        "request_rules",
        Column("id", Integer, primary_key=True),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False),
        Column("name", String(255), nullable=False),
        Column("server_id", Integer, _of("servers")),
        Column("tag", String(64)),
        Column("system_user", String(32), quote=True),
        Column("approvers", Integer, nullable=False),
        Column("longest_seconds", Integer),
        Column("created_at", BigInteger, nullable=False),
        _seal(),
        UniqueConstraint("workspace_id", "name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_request_rules_server_id", "request_rules", ["server_id"])


def _keys() -> None:
    op.create_table(
        "key_challenges",
        Column("id", Integer, primary_key=True),
        Column("user_id", Integer, _of("users"), nullable=False),
        Column("fingerprint", String(64), nullable=False),
        Column("nonce", String(64), nullable=False, unique=True),
        Column("expires_at", BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_key_challenges_user_id", "key_challenges", ["user_id"])
    op.create_index("ix_key_challenges_expires_at", "key_challenges", ["expires_at"])
