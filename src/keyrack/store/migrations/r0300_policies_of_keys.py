"""Which keys a workspace accepts, where it says so itself."""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Integer, LargeBinary, String

revision = "0300"
down_revision = "0285"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "key_policies",
        Column(
            "workspace_id",
            Integer,
            ForeignKey("workspaces.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        Column("key_types", JSON, nullable=False),
        Column("rsa_minimum_bits", Integer),
        Column("set_at", BigInteger, nullable=False),
        Column("set_by", String(255), nullable=False),
        Column("seal", LargeBinary(32)),
    )
