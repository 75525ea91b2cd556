"""Passwords and deployment keys asked of hosts, accounts to remove, SSH settings' and keys' way to the host."""

from __future__ import annotations

import sqlalchemy
from alembic import op

revision = "0003"
down_revision = "0002"

COLUMNS = (
    ("servers", "sshd_revision", sqlalchemy.BigInteger),
    ("servers", "sshd_changed_at", sqlalchemy.BigInteger),
    ("system_users", "revision", sqlalchemy.BigInteger),
    ("system_users", "sealed_password", sqlalchemy.LargeBinary),
    ("system_users", "deployment_key_asked_at", sqlalchemy.BigInteger),
    ("credentials", "delivered_at", sqlalchemy.BigInteger),
)


def upgrade() -> None:
    """Add columns that may be empty, and one table."""
    for table, column, kind in COLUMNS:
        op.add_column(table, sqlalchemy.Column(column, kind))
    op.create_table(
        "removed_accounts",
        sqlalchemy.Column(
            "server_id",
            sqlalchemy.Integer,
            sqlalchemy.ForeignKey("servers.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sqlalchemy.Column("username", sqlalchemy.String(32), primary_key=True),
        sqlalchemy.Column("removed_at", sqlalchemy.BigInteger, nullable=False),
    )
