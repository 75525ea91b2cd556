"""Indexes for the columns that a deleted user or repository leads to: the delete had to read whole tables."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

COLUMNS = (
    ("credentials", "created_by"),
    ("deploy_keys", "created_by"),
    ("repositories", "created_by"),
    ("repository_names", "repository_id"),
)


def upgrade() -> None:
    """Add them."""
    for table, column in COLUMNS:
        op.create_index(f"ix_{table}_{column}", table, [column])
