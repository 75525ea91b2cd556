"""One name for one thing: the words of this field in place of those that Keyrack began with."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy
from alembic import op
from sqlalchemy import column, table

revision = "0040"
down_revision = "0031"

COLUMNS = (
    ("servers", "stale_after_seconds", "offline_after_seconds"),
    ("servers", "stale_then", "offline_then"),
    ("events", "door", "channel"),
    ("access_keys", "sealed_secret", "encrypted_secret"),
    ("system_users", "sealed_password", "encrypted_password"),
    ("deleted_servers", "take_away", "remove_keys"),
)


def upgrade() -> None:
    """Rename columns and a table, and the word for a host that only looks."""
    for name, old, new in COLUMNS:
        # Both databases rename a column in place, without the rebuild that alembic does for SQLite.
        op.execute(f"ALTER TABLE {name} RENAME COLUMN {old} TO {new}")
    _move_unmanaged_keys()
    _observe()


def _move_unmanaged_keys() -> None:
    """A new table takes the rows, as a renamed one would keep the old names of its constraints."""
    columns: list[sqlalchemy.Column[Any]] = [
        sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True),
        sqlalchemy.Column(
            "server_id", sqlalchemy.Integer, sqlalchemy.ForeignKey("servers.id", ondelete="CASCADE"), nullable=False
        ),
        sqlalchemy.Column("username", sqlalchemy.String(64), nullable=False),
        sqlalchemy.Column("path", sqlalchemy.String(1024), nullable=False),
        sqlalchemy.Column("kind", sqlalchemy.String(16), nullable=False),
        sqlalchemy.Column("line", sqlalchemy.Integer, nullable=False),
        sqlalchemy.Column("fingerprint", sqlalchemy.String(64), nullable=False),
        sqlalchemy.Column("key_type", sqlalchemy.String(64), nullable=False),
        sqlalchemy.Column("public_key", sqlalchemy.Text, nullable=False),
        sqlalchemy.Column("options", sqlalchemy.Text, nullable=False),
        sqlalchemy.Column("comment", sqlalchemy.Text, nullable=False),
        sqlalchemy.Column("problem", sqlalchemy.Text, nullable=False),
        sqlalchemy.Column("in_force", sqlalchemy.Boolean, nullable=False),
        sqlalchemy.Column("state", sqlalchemy.String(16), nullable=False),
        sqlalchemy.Column("found_at", sqlalchemy.BigInteger, nullable=False),
        sqlalchemy.Column("seen_at", sqlalchemy.BigInteger, nullable=False),
    ]
    names = ", ".join(one.name for one in columns)
    op.create_table(
        "unmanaged_keys",
        *columns,
        sqlalchemy.UniqueConstraint("server_id", "username", "path", "fingerprint"),
        sqlite_autoincrement=True,
    )
    op.execute(f"INSERT INTO unmanaged_keys ({names}) SELECT {names} FROM found_keys")  # noqa: S608
    # No id is given twice, not even that of a row which is gone.
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "SELECT setval(pg_get_serial_sequence('unmanaged_keys', 'id'), "
            "(SELECT last_value FROM found_keys_id_seq), (SELECT is_called FROM found_keys_id_seq))"
        )
    else:
        op.execute("DELETE FROM sqlite_sequence WHERE name = 'unmanaged_keys'")
        op.execute(
            "INSERT INTO sqlite_sequence (name, seq) SELECT 'unmanaged_keys', seq FROM sqlite_sequence "
            "WHERE name = 'found_keys'"
        )
    op.drop_table("found_keys")
    op.create_index("ix_unmanaged_keys_fingerprint", "unmanaged_keys", ["fingerprint"])


def _observe() -> None:
    op.execute("UPDATE servers SET mode = 'observe' WHERE mode = 'adopt'")
    servers: Any = table("servers", column("id"), column("facts", sqlalchemy.JSON))
    bind = op.get_bind()
    for row in bind.execute(sqlalchemy.select(servers.c.id, servers.c.facts)).all():
        facts = json.loads(row.facts) if isinstance(row.facts, str) else row.facts
        if isinstance(facts, dict) and facts.get("enforcement") == "adopt":
            new = {**facts, "enforcement": "observe"}
            bind.execute(sqlalchemy.update(servers).where(servers.c.id == row.id).values(facts=new))
