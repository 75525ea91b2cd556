"""Names of accounts that hosts have may be longer than those that Keyrack gives."""

from __future__ import annotations

from alembic import op
from sqlalchemy import String, text
from sqlalchemy.sql import quoted_name

revision = "0170"
down_revision = "0180"

# A word of PostgreSQL's own since its version 16.
SYSTEM_USER = quoted_name("system_user", quote=True)
COLUMNS = {
    "system_users": "username",
    "grants": SYSTEM_USER,
    "sessions": "username",
    "access_requests": SYSTEM_USER,
    "request_rules": SYSTEM_USER,
}


def upgrade() -> None:
    """Make room. SQLite holds nobody to a length, but has the tables say the same, so they are made anew there."""
    connection = op.get_bind()
    for table, column in COLUMNS.items():
        if connection.dialect.name == "sqlite":
            last = connection.execute(text("SELECT seq FROM sqlite_sequence WHERE name = :name"), {"name": table})
            number = last.scalar()
        with op.batch_alter_table(table, table_kwargs={"sqlite_autoincrement": True}) as batch:
            batch.alter_column(column, existing_type=String(32), type_=String(64))
        if connection.dialect.name == "sqlite" and number is not None:
            # The id of a deleted row is not used again, which a new table would not know.
            connection.execute(text("DELETE FROM sqlite_sequence WHERE name = :name"), {"name": table})
            values = {"name": table, "number": number}
            connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :number)"), values)
