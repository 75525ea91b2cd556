"""The table of servers' host keys; must hold no question."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from keyrack.store.columns import Flag, Moment, metadata

host_keys = Table(
    "host_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("port", Integer, nullable=False),
    # Whether its host showed it when it last said, and whether people may trust it: until then it is an alarm.
    Column("shown", Flag, nullable=False),
    Column("confirmed", Flag, nullable=False),
    Column("first_at", Moment, nullable=False),
    Column("confirmed_at", Moment),
    Column("confirmed_by", Text),
    Column("seal", LargeBinary(32), nullable=False),
    UniqueConstraint("server_id", "fingerprint"),
    sqlite_autoincrement=True,
)
