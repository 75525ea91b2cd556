"""The tables of requests for access and of proofs of possession; must hold no question and no rule."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from keyrack.store.tables import Moment, metadata


def _table(name: str, *columns: Any) -> Table:
    return Table(name, metadata, *columns, sqlite_autoincrement=True)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _seal() -> Column[bytes]:
    return Column("seal", LargeBinary(32))


def _of(target: str) -> ForeignKey:
    return ForeignKey(f"{target}.id", ondelete="CASCADE")


_PENDING = text("state = 'pending'")

access_requests = _table(
    "access_requests",
    # Somebody wants to log in somewhere for a while; a grant opens it once enough others approve.
    _id(),
    Column("workspace_id", Integer, _of("workspaces"), nullable=False),
    Column("user_id", Integer, _of("users"), nullable=False, index=True),
    Column("server_id", Integer, _of("servers"), index=True),
    Column("tag", String(64)),
    Column("system_user", String(32), nullable=False),
    Column("seconds", Integer),
    Column("until", Moment),
    Column("reason", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("approvers", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("pending_until", Moment, nullable=False),
    Column("decided_at", Moment),
    Column("decided_by", Text),
    Column("grant_id", Integer),
    _seal(),
    Index("ix_access_requests_workspace_id_id", "workspace_id", "id"),
    Index("ix_access_requests_pending", "pending_until", sqlite_where=_PENDING, postgresql_where=_PENDING),
)

access_request_approvals = Table(
    "access_request_approvals",
    metadata,
    # approver: "user 5", or "operator" and the name of who acted on the data itself.
    Column("request_id", Integer, _of("access_requests"), primary_key=True),
    Column("approver", String(255), primary_key=True),
    Column("user_id", Integer, _of("users"), index=True),
    Column("approved_at", Moment, nullable=False),
    _seal(),
)

request_rules = _table(
    "request_rules",
    # How many must approve, and how long at most; server, tag and account that are empty mean any.
    _id(),
    Column("workspace_id", Integer, _of("workspaces"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("server_id", Integer, _of("servers"), index=True),
    Column("tag", String(64)),
    Column("system_user", String(32)),
    Column("approvers", Integer, nullable=False),
    Column("longest_seconds", Integer),
    Column("created_at", Moment, nullable=False),
    _seal(),
    UniqueConstraint("workspace_id", "name"),
)

key_challenges = _table(
    "key_challenges",
    # What somebody may sign once to prove that a key is theirs; the text itself is made again from these.
    _id(),
    Column("user_id", Integer, _of("users"), nullable=False, index=True),
    Column("fingerprint", String(64), nullable=False),
    Column("nonce", String(64), nullable=False, unique=True),
    Column("expires_at", Moment, nullable=False, index=True),
)
