"""The table of what is counted a day, for charts; must hold no question and no rule."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String, Table

from keyrack.store.columns import metadata, referring

daily_tallies = Table(
    "daily_tallies",
    metadata,
    # day: days since 1970, in UTC; what: see core/audit/tallies.py. Nothing is decided by it.
    Column("workspace_id", Integer, referring("workspaces"), primary_key=True, autoincrement=False),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("what", String(32), primary_key=True),
    Column("number", Integer, nullable=False),
)
