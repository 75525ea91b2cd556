"""The tables of requests for access and of proofs of possession; must hold no question and no rule."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from keyrack.store.tables.columns import Moment, id_column, index_where, metadata, numbered, referring, seal_column

# Questions use these very words: with a bound value a database would not use the index.
IS_PENDING = text("state = 'pending'")
IS_OPEN = text("state = 'approved'")

access_requests = numbered(
    "access_requests",
    # Requests to log in somewhere for a while; each gets a grant once enough others approve.
    id_column(),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False),
    Column("user_id", Integer, referring("users"), nullable=False, index=True),
    Column("server_id", Integer, referring("servers"), index=True),
    Column("tag", String(64)),
    # Quoted, as PostgreSQL has a word of its own of that name since version 16.
    Column("system_user", String(64), quote=True, nullable=False),
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
    Column("word", Text),
    seal_column(),
    Index("ix_access_requests_workspace_id_id", "workspace_id", "id"),
    index_where("ix_access_requests_open", "grant_id", condition=IS_OPEN.text),
    index_where("ix_access_requests_pending", "pending_until", condition=IS_PENDING.text),
)

access_request_approvals = Table(
    "access_request_approvals",
    metadata,
    # approver: "user 5", or "operator NAME" for a command that ran on the data itself.
    Column("request_id", Integer, referring("access_requests"), primary_key=True),
    Column("approver", String(255), primary_key=True),
    Column("user_id", Integer, referring("users"), index=True),
    Column("approved_at", Moment, nullable=False),
    seal_column(),
)

request_rules = numbered(
    "request_rules",
    # How many must approve a request, and how long it may last at most; empty server, tag or account: any.
    id_column(),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("server_id", Integer, referring("servers"), index=True),
    Column("tag", String(64)),
    Column("system_user", String(64), quote=True),
    Column("approvers", Integer, nullable=False),
    Column("longest_seconds", Integer),
    Column("created_at", Moment, nullable=False),
    seal_column(),
    UniqueConstraint("workspace_id", "name"),
)

key_challenges = numbered(
    "key_challenges",
    # What a user may sign once to prove that a key is theirs; the text to sign is made again from these columns.
    id_column(),
    Column("user_id", Integer, referring("users"), nullable=False, index=True),
    Column("fingerprint", String(64), nullable=False),
    Column("nonce", String(64), nullable=False, unique=True),
    Column("expires_at", Moment, nullable=False, index=True),
)
