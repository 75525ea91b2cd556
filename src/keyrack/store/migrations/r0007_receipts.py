"""What a revocation's receipt takes: the revision that carries it, and when its host first obeyed that."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    """Add them. What was revoked before counts as carried by the revision of then, which nobody noted: any."""
    op.add_column("revocations", Column("revision", BigInteger, nullable=False, server_default="0"))
    op.add_column("revocations", Column("confirmed_at", BigInteger, nullable=True))
    op.create_index("ix_revocations_fingerprint", "revocations", ["fingerprint"])
