"""The tables of keys: credentials, user keys, grants, revocations, ends, freezes, sources; must hold no question."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from keyrack.store.tables.columns import (
    Flag,
    Json,
    Moment,
    id_column,
    index_where,
    metadata,
    numbered,
    receipt_column,
    referring,
    seal_column,
)

UNNOTICED = "noticed_at IS NULL AND expires_at IS NOT NULL"

credentials = numbered(
    "credentials",
    id_column(),
    Column("server_id", Integer, referring("servers"), nullable=False),
    Column("system_user_id", Integer, referring("system_users"), nullable=False, index=True),
    Column("label", String(255), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("key_type", String(64), nullable=False),
    Column("temporary", Flag, nullable=False),
    Column("expires_at", Moment, index=True),
    Column("restrictions", Json, nullable=False),
    Column("created_by", Integer, referring("users", cascade=False), index=True),
    Column("created_at", Moment, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
    Column("acknowledged_at", Moment),
    Column("noticed_at", Moment),
    Column("renewed_at", Moment),
    Column("break_glass", Flag),
    Column("confirmed_at", Moment),
    Column("frozen_at", Moment),
    UniqueConstraint("server_id", "label"),
    Index("ix_credentials_server_id_id", "server_id", "id"),
    Index("ix_credentials_server_id_expires_at", "server_id", "expires_at"),
    index_where("ix_credentials_unacknowledged", "server_id", "revision", condition="acknowledged_at IS NULL"),
    index_where("ix_credentials_unnoticed", "expires_at", condition=UNNOTICED),
)

user_keys = numbered(
    "user_keys",
    id_column(),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False),
    Column("user_id", Integer, referring("users"), nullable=False, index=True),
    Column("title", Text),
    Column("public_key", Text),
    Column("comment", Text, nullable=False),
    Column("fingerprint", String(64), index=True),
    Column("key_type", String(64)),
    Column("created_at", Moment, nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
    Column("expires_at", Moment, index=True),
    Column("noticed_at", Moment),
    Column("renewed_at", Moment),
    Column("confirmed_at", Moment),
    Column("frozen_at", Moment),
    index_where("ix_user_keys_unnoticed", "expires_at", condition=UNNOTICED),
)

key_owners = Table(
    "key_owners",
    metadata,
    # Who has claimed a key: one user key, or deploy keys. The primary key refuses a second claim, even in a race.
    Column("fingerprint", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),
    Column("user_key_id", Integer, referring("user_keys"), index=True),
)

grants = numbered(
    "grants",
    id_column(),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False, index=True),
    Column("user_id", Integer, referring("users"), index=True),
    Column("group_id", Integer, referring("groups"), index=True),
    Column("server_id", Integer, referring("servers"), index=True),
    Column("tag", String(64), index=True),
    # Quoted, as PostgreSQL has a word of its own of that name since version 16.
    Column("system_user", String(64), quote=True, nullable=False),
    Column("restrictions", Json, nullable=False),
    Column("expires_at", Moment, index=True),
    Column("created_at", Moment, nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
    Column("all_servers", Flag, index=True),
    Column("starts_at", Moment),
    Column("begun_at", Moment),  # when hosts were told that the start came
    Column("reason", Text),
    Column("noticed_at", Moment),
    Column("renewed_at", Moment),
    Column("break_glass", Flag),
    index_where("ix_grants_break_glass", "workspace_id", condition="break_glass IS NOT NULL"),
    index_where("ix_grants_unnoticed", "expires_at", condition=UNNOTICED),
    index_where("ix_grants_to_begin", "starts_at", condition="begun_at IS NULL AND starts_at IS NOT NULL"),
)

revocations = Table(
    "revocations",
    metadata,
    # Keys that a host must refuse: it was given them once, and nothing lets them in there any more.
    Column("server_id", Integer, referring("servers"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("public_key", Text, nullable=False),
    Column("revoked_at", Moment, nullable=False),
    # The server's revision that carries it, and when the host first said that it obeys that one or a later one.
    Column("revision", BigInteger, nullable=False, server_default="0"),
    Column("acknowledged_at", Moment),
    seal_column(),
    receipt_column(),
    Index("ix_revocations_fingerprint", "fingerprint"),
    index_where("ix_revocations_unacknowledged", "server_id", "revision", condition="acknowledged_at IS NULL"),
)

revoked_keys = Table(
    "revoked_keys",
    metadata,
    # Keys revoked everywhere: nobody may register one in this workspace until its row is deleted.
    Column("workspace_id", Integer, referring("workspaces"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("revoked_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("revoked_at", Moment, nullable=False),
    seal_column(),
    Index("ix_revoked_keys_workspace_id_revoked_at", "workspace_id", "revoked_at"),
)

key_uses = Table(
    "key_uses",
    metadata,
    # The last use of a key on each server; server_id is 0 for Git.
    Column("fingerprint", String(64), primary_key=True),
    Column("server_id", Integer, primary_key=True, autoincrement=False),
    Column("last_used_at", Moment, nullable=False),
    Column("address", String(64), nullable=False),
)

expired_keys = Table(
    "expired_keys",
    metadata,
    # Keys that have expired: unless a setting allows it, nobody may register one in this workspace again.
    Column("workspace_id", Integer, ForeignKey("workspaces.id", ondelete="CASCADE"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("expired_at", Moment, nullable=False, index=True),
    # Whose it was, and its title, to be shown; empty for credentials, and in rows from before these columns.
    Column("user_id", Integer),
    Column("title", Text),
    Column("seal", LargeBinary(32)),
    Index("ix_expired_keys_user_id_expired_at", "user_id", "expired_at"),
)

freezes = Table(
    "freezes",
    metadata,
    # Who froze which keys and why. What is frozen now is told by frozen_at of servers, user keys and credentials.
    Column("id", Integer, primary_key=True),
    Column("workspace_id", Integer, ForeignKey("workspaces.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", Integer),
    Column("server_id", Integer),
    Column("reason", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("keys", Integer, nullable=False),
    # By id of each server concerned the revision that says so.
    Column("revisions", Json, nullable=False),
    Column("ended_at", Moment),
    Column("ended_by", Text),
    Index("ix_freezes_workspace_id_id", "workspace_id", "id"),
    sqlite_autoincrement=True,
)

key_sources = Table(
    "key_sources",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("workspace_id", Integer, ForeignKey("workspaces.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("user_id", Integer, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("url", Text, nullable=False),
    Column("account", Text, nullable=False),
    # The account's number there, which differs if another account takes the name; empty until it is known.
    Column("account_id", Text),
    # The fingerprints that the account had at the last check, each with the id of the user key made of it, or null.
    Column("keys", Json, nullable=False),
    Column("etag", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("words", Text, nullable=False),
    Column("checked_at", Moment),
    Column("next_at", Moment, nullable=False, index=True),
    Column("created_at", Moment, nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
    UniqueConstraint("user_id", "kind"),
    sqlite_autoincrement=True,
)
