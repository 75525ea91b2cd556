"""What hosts and Git endpoints acknowledged has seals; who has the key seals what is there (app.py)."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, LargeBinary

revision = "0375"
down_revision = "0370"


def upgrade() -> None:
    """Add the columns, empty."""
    for table in ("servers", "revocations", "offboarding_hosts"):
        op.add_column(table, Column("receipt", LargeBinary(160)))
    for table in ("offboarding_hosts", "offboarding_git"):
        op.add_column(table, Column("seal", LargeBinary(32)))
    op.create_index("ix_offboarding_hosts_server_id", "offboarding_hosts", ["server_id"])
