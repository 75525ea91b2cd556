"""The table of the marks of older revisions; must hold no question and no rule."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Integer, String, Table

from keyrack.store.columns import metadata

older_marks = Table(
    "older_marks",
    metadata,
    Column("server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    # marks: of this revision and of those before it, the newest first, as the server's own lineage has them.
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("marks", String(512), nullable=False),
)
