"""The table of how far logins were told by each host; must hold no question and no rule."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Integer, String, Table

from keyrack.store.columns import Moment, metadata

told_logins = Table(
    "told_logins",
    metadata,
    # batch: the last that was taken, which a host tells again where it heard no answer; events: of the hour from
    # hour_from on; left_out: logins of that hour that are counted, and no events.
    Column("server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True),
    Column("batch", String(32), nullable=False),
    Column("hour_from", Moment, nullable=False),
    Column("events", Integer, nullable=False),
    Column("left_out", Integer, nullable=False),
)
