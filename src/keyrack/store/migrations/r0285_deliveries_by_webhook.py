"""An index of a webhook's deliveries by their age: a page of them sorted all that there are."""

from __future__ import annotations

from alembic import op

revision = "0285"
down_revision = "0240"


def upgrade() -> None:
    """Add it."""
    op.create_index("ix_webhook_deliveries_webhook_id_id", "webhook_deliveries", ["webhook_id", "id"])
