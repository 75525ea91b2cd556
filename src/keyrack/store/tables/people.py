"""The tables of people: workspaces, projects, users, groups, tokens, access keys; must hold no question."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, String, Table, Text, UniqueConstraint, text

from keyrack.store.tables.columns import (
    Flag,
    Json,
    Moment,
    id_column,
    index_where,
    metadata,
    numbered,
    referring,
    seal_column,
)

# Questions use these very words, or a database would not use the index. "tokens.", as users have a kind too.
IS_LISTED = text("tokens.kind = 'api' AND tokens.revoked_at IS NULL")

workspaces = numbered(
    "workspaces",
    id_column(),
    Column("uid", String(32), nullable=False, unique=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
)

key_policies = Table(
    "key_policies",
    metadata,
    # Which keys a workspace accepts of those that the service accepts; empty columns: as the service's settings say.
    Column("workspace_id", Integer, referring("workspaces"), primary_key=True, autoincrement=False),
    Column("key_types", Json, nullable=False),
    Column("rsa_minimum_bits", Integer),
    Column("set_at", Moment, nullable=False),
    Column("set_by", String(255), nullable=False),
    seal_column(),
)

projects = numbered(
    "projects",
    id_column(),
    Column("uid", String(32), nullable=False, unique=True),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False),
    Column("name", String(255), nullable=False),
    seal_column(),
    UniqueConstraint("workspace_id", "name"),
)

users = numbered(
    "users",
    id_column(),
    Column("uid", String(32), nullable=False, unique=True),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("role", String(16), nullable=False),
    Column("policies", Json, nullable=False),
    Column("password_hash", Text),
    Column("disabled_at", Moment),
    Column("created_at", Moment, nullable=False),
    seal_column(),
    Column("kind", String(16)),  # "service" for a program, empty for a person
    UniqueConstraint("workspace_id", "name"),
)

groups = numbered(
    "groups",
    id_column(),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("created_at", Moment, nullable=False),
    seal_column(),
    UniqueConstraint("workspace_id", "name"),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", Integer, referring("groups"), primary_key=True),
    Column("user_id", Integer, referring("users"), primary_key=True),
    seal_column(),
    Index("ix_group_members_user_id", "user_id"),
)

tokens = numbered(
    "tokens",
    id_column(),
    Column("user_id", Integer, referring("users"), nullable=False, index=True),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("name", String(255), nullable=False),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("scopes", Json, nullable=False),
    Column("details", Json, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, index=True),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
    seal_column(),
    # Those that people see in lists; of IAM tokens there may be one for each call of a program.
    index_where("ix_tokens_listed", "workspace_id", "id", condition="kind = 'api' AND revoked_at IS NULL"),
)

access_keys = Table(
    "access_keys",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("user_id", Integer, referring("users"), nullable=False, index=True),
    Column("encrypted_secret", LargeBinary, nullable=False),
    Column("description", String(255), nullable=False),
    Column("active", Flag, nullable=False),
    Column("security_token_hash", LargeBinary(32)),
    Column("details", Json, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, index=True),
    seal_column(),
)

access_key_failures = Table(
    "access_key_failures",
    metadata,
    # Wrong signatures in a row, by access key and address.
    Column("access_key_id", String(128), referring("access_keys"), primary_key=True),
    Column("address", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", Moment, nullable=False),
)
