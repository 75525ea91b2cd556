"""The tree that counts rows which decide about access; core/sealing.py counts what there is, in one transaction."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, LargeBinary

revision = "0130"
down_revision = "0083"


def upgrade() -> None:
    """Create it, empty."""
    op.create_table(
        "access_tree",
        Column("id", BigInteger, autoincrement=False, nullable=False, primary_key=True),
        Column("content", LargeBinary, nullable=False),
    )
