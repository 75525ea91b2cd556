"""Every row that decides about access can carry a seal; core/sealing.py seals what there is, in one transaction."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, LargeBinary

revision = "0030"
down_revision = "0016"

TABLES = (
    "users",
    "groups",
    "group_members",
    "tokens",
    "access_keys",
    "servers",
    "server_tags",
    "enrolments",
    "system_users",
    "removed_accounts",
    "revocations",
    "revoked_keys",
    "held_back",
    "projects",
    "repositories",
    "repository_members",
)


def upgrade() -> None:
    """Add a column to each."""
    for table in TABLES:
        op.add_column(table, Column("seal", LargeBinary(32)))
