"""Counts signatures that did not hold, so that an access key is barred after five in a row, in every process."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "access_key_failures",
        sa.Column(
            "access_key_id",
            sa.String(128),
            sa.ForeignKey("access_keys.id", ondelete="CASCADE", name="fk_access_key_failures_access_key_id"),
            nullable=False,
        ),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("last_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("access_key_id", "address", name="pk_access_key_failures"),
    )
