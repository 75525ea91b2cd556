"""What hosts report is called so: their logins and their last document stand in tables of that name."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String, Text

revision = "0370"
down_revision = "0360"


def upgrade() -> None:
    """New tables take the rows, as renamed ones would keep the old names of their constraints."""
    op.create_table(
        "reported_documents",
        Column(
            "server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
        ),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("text", Text, nullable=False),
    )
    op.create_table(
        "reported_logins",
        Column("server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True),
        Column("batch", String(32), nullable=False),
        Column("hour_from", BigInteger, nullable=False),
        Column("events", Integer, nullable=False),
        Column("left_out", Integer, nullable=False),
    )
    _move("told_documents", "reported_documents", "server_id, number, text")
    _move("told_logins", "reported_logins", "server_id, batch, hour_from, events, left_out")


def _move(old: str, new: str, columns: str) -> None:
    op.execute(f"INSERT INTO {new} ({columns}) SELECT {columns} FROM {old}")  # noqa: S608
    op.drop_table(old)
