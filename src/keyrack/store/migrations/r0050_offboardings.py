"""People who are removed everywhere in one call: what went, which hosts and Git endpoints have said that they obey."""

from __future__ import annotations

import sqlalchemy
from alembic import op
from sqlalchemy import BigInteger, Column, Integer, LargeBinary, String, Text

revision = "0050"
down_revision = "0040"


def _of(column: str, name: str) -> sqlalchemy.ForeignKey:
    return sqlalchemy.ForeignKey(column, name=name, ondelete="CASCADE")


def upgrade() -> None:
    """Add four tables."""
    op.create_table(
        "offboardings",
        Column("id", Integer, nullable=False),
        Column("workspace_id", Integer, _of("workspaces.id", "fk_offboardings_workspace_id"), nullable=False),
        Column("user_id", Integer, nullable=False),
        Column("user_name", String(255), nullable=False),
        Column("asked_by", Text, nullable=False),
        Column("reason", Text, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("undo_until", BigInteger, nullable=False),
        Column("gone", sqlalchemy.JSON, nullable=False),
        Column("kept", sqlalchemy.JSON, nullable=False),
        Column("undone_at", BigInteger),
        Column("undone_by", Text),
        Column("seal", LargeBinary(32)),
        sqlalchemy.PrimaryKeyConstraint("id", name="pk_offboardings"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_offboardings_user_id", "offboardings", ["user_id"])
    op.create_index("ix_offboardings_workspace_id_id", "offboardings", ["workspace_id", "id"])
    op.create_table(
        "offboarding_hosts",
        _offboarding("offboarding_hosts"),
        Column("server_id", Integer, nullable=False, autoincrement=False),
        Column("name", String(255), nullable=False),
        Column("revision", BigInteger, nullable=False),
        Column("confirmed_at", BigInteger),
        sqlalchemy.PrimaryKeyConstraint("offboarding_id", "server_id", name="pk_offboarding_hosts"),
    )
    _unconfirmed("offboarding_hosts", "server_id", "revision")
    op.create_table(
        "git_endpoints",
        Column("id", Integer, nullable=False),
        Column("name", String(255), nullable=False),
        Column("seen_at", BigInteger, nullable=False),
        sqlalchemy.PrimaryKeyConstraint("id", name="pk_git_endpoints"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "offboarding_git",
        _offboarding("offboarding_git"),
        Column("endpoint_id", Integer, nullable=False, autoincrement=False),
        Column("name", String(255), nullable=False),
        Column("confirmed_at", BigInteger),
        Column("stopped", Integer, nullable=False),
        sqlalchemy.PrimaryKeyConstraint("offboarding_id", "endpoint_id", name="pk_offboarding_git"),
    )
    _unconfirmed("offboarding_git", "endpoint_id")


def _offboarding(table: str) -> Column[int]:
    return Column("offboarding_id", Integer, _of("offboardings.id", f"fk_{table}_offboarding_id"), nullable=False)


def _unconfirmed(table: str, *columns: str) -> None:
    condition = sqlalchemy.text("confirmed_at IS NULL")
    op.create_index(f"ix_{table}_unconfirmed", table, list(columns), sqlite_where=condition, postgresql_where=condition)
