"""Former paths of repositories and keys of deleted servers have seals; who has the key seals what is there (app.py)."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, LargeBinary

revision = "0340"
down_revision = "0300"

TABLES = ("repository_names", "deleted_server_keys")


def upgrade() -> None:
    """Add the column, empty. Deleted servers have one, for a seal of a kind of its own so far."""
    for table in TABLES:
        op.add_column(table, Column("seal", LargeBinary(32)))
