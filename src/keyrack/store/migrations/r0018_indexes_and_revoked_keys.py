"""Indexes where a question read a whole table or a server's all; and the keys that were revoked everywhere."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from alembic import op
from sqlalchemy import Column

revision = "0018"
down_revision = "0007"

INDEXES = (
    ("user_keys", "ix_user_keys_fingerprint", ["fingerprint"], ""),
    ("repositories", "ix_repositories_workspace_id", ["workspace_id"], ""),
    ("credentials", "ix_credentials_server_id_id", ["server_id", "id"], ""),
    ("credentials", "ix_credentials_server_id_expires_at", ["server_id", "expires_at"], ""),
    ("credentials", "ix_credentials_undelivered", ["server_id", "revision"], "delivered_at IS NULL"),
    ("revocations", "ix_revocations_unconfirmed", ["server_id", "revision"], "confirmed_at IS NULL"),
)

_events = sqlalchemy.table(
    "events",
    *map(sqlalchemy.column, ("id", "workspace_id", "at", "actor_name", "action", "outcome", "target_kind")),
    sqlalchemy.column("details", sqlalchemy.JSON),
)


def upgrade() -> None:
    """Add them; keys revoked everywhere before, and not registered since, are known from the audit log."""
    for table, name, columns, where in INDEXES:
        condition = sqlalchemy.text(where) if where else None
        op.create_index(name, table, columns, sqlite_where=condition, postgresql_where=condition)
    made = op.create_table(
        "revoked_keys",
        Column(
            "workspace_id",
            sqlalchemy.Integer,
            sqlalchemy.ForeignKey("workspaces.id", name="fk_revoked_keys_workspace_id", ondelete="CASCADE"),
            nullable=False,
        ),
        Column("fingerprint", sqlalchemy.String(64), nullable=False),
        Column("revoked_by", sqlalchemy.Text, nullable=False),
        Column("reason", sqlalchemy.Text, nullable=False),
        Column("revoked_at", sqlalchemy.BigInteger, nullable=False),
        sqlalchemy.PrimaryKeyConstraint("workspace_id", "fingerprint", name="pk_revoked_keys"),
    )
    op.create_index("ix_revoked_keys_workspace_id_revoked_at", "revoked_keys", ["workspace_id", "revoked_at"])
    rows = _revoked_before(op.get_bind())
    if rows:
        op.bulk_insert(made, rows)


def _revoked_before(connection: sqlalchemy.Connection) -> list[dict[str, Any]]:
    """The keys that `keys:revoke` took away and that nothing in the same workspace has again."""
    statement = sqlalchemy.select(_events).where(
        _events.c.action == "keys:revoke", _events.c.outcome == "done", _events.c.target_kind == "key"
    )
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for event in connection.execute(statement.order_by(_events.c.id)).all():
        fingerprint = event.details.get("fingerprint") if isinstance(event.details, dict) else None
        if isinstance(fingerprint, str) and not _registered(connection, event.workspace_id, fingerprint):
            rows[event.workspace_id, fingerprint] = {
                "workspace_id": event.workspace_id,
                "fingerprint": fingerprint,
                "revoked_by": event.actor_name,
                "reason": "",
                "revoked_at": event.at,
            }
    return list(rows.values())


def _registered(connection: sqlalchemy.Connection, workspace_id: int, fingerprint: str) -> bool:
    """Whether somebody in a workspace has the key again; true as well where there is no such workspace."""
    given = {"workspace": workspace_id, "fingerprint": fingerprint}
    found = connection.execute(
        sqlalchemy.text(
            "SELECT 1 FROM user_keys WHERE fingerprint = :fingerprint AND workspace_id = :workspace"
            " UNION ALL SELECT 1 FROM credentials c JOIN servers s ON s.id = c.server_id"
            " WHERE c.fingerprint = :fingerprint AND s.workspace_id = :workspace"
            " UNION ALL SELECT 1 FROM deploy_keys d JOIN repositories r ON r.id = d.repository_id"
            " WHERE d.fingerprint = :fingerprint AND r.workspace_id = :workspace"
            " UNION ALL SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM workspaces WHERE id = :workspace)"
        ),
        given,
    )
    return found.first() is not None
