"""An index of the few events that are alarms, which the overview shows first."""

from __future__ import annotations

from alembic import op
from sqlalchemy import text

revision = "0162"
down_revision = "0161"

IS_ALARM = text("level = 'alarm'")


def upgrade() -> None:
    """Create it."""
    op.create_index(
        "ix_events_alarms", "events", ["workspace_id", "id"], sqlite_where=IS_ALARM, postgresql_where=IS_ALARM
    )
