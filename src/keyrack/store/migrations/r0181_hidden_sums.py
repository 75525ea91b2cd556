"""Sums of servers' rows are hidden from here on; those there are get hidden by who has the key (app.py)."""

from __future__ import annotations

revision = "0181"
down_revision = "0162"


def upgrade() -> None:
    """No table changes."""
