"""Sessions of browsers, second factors, and identities at OpenID providers."""

from __future__ import annotations

import sqlalchemy
from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, String, Text

revision = "0090"
down_revision = "0082"


def _of(target: str) -> ForeignKey:
    return ForeignKey(f"{target}.id", ondelete="CASCADE")


def upgrade() -> None:
    """Add four tables."""
    op.create_table(
        "web_sessions",
        Column("id", Integer, primary_key=True),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False),
        Column("user_id", Integer, _of("users"), nullable=False),
        Column("secret_hash", LargeBinary(32), nullable=False),
        Column("method", String(32), nullable=False),
        Column("address", String(64), nullable=False),
        Column("browser", String(255), nullable=False),
        Column("issuer", Text),
        Column("issuer_session", String(255)),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("proven_at", BigInteger, nullable=False),
        Column("seen_at", BigInteger, nullable=False),
        Column("seal", LargeBinary(32)),
        sqlalchemy.UniqueConstraint("secret_hash"),
        sqlite_autoincrement=True,
    )
    for column in ("user_id", "issuer_session", "expires_at"):
        op.create_index(f"ix_web_sessions_{column}", "web_sessions", [column])
    op.create_table(
        "authenticators",
        Column("id", Integer, primary_key=True),
        Column("user_id", Integer, _of("users"), nullable=False),
        Column("kind", String(16), nullable=False),
        Column("name", String(255), nullable=False),
        Column("secret", LargeBinary, nullable=False),
        Column("credential", LargeBinary(1023)),
        Column("step", Integer),
        Column("created_at", BigInteger, nullable=False),
        Column("last_used_at", BigInteger),
        Column("seal", LargeBinary(32)),
        sqlalchemy.UniqueConstraint("credential"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_authenticators_user_id", "authenticators", ["user_id"])
    op.create_table(
        "identities",
        Column("id", Integer, primary_key=True),
        Column("user_id", Integer, _of("users"), nullable=False),
        Column("issuer", Text, nullable=False),
        Column("subject", String(255), nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("seal", LargeBinary(32)),
        sqlalchemy.UniqueConstraint("issuer", "subject"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_identities_user_id", "identities", ["user_id"])
    op.create_table(
        "spent_proofs",
        Column("id", Integer, primary_key=True),
        Column("mark", LargeBinary(32), nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        sqlalchemy.UniqueConstraint("mark"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_spent_proofs_expires_at", "spent_proofs", ["expires_at"])
