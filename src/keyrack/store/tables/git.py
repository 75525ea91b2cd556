"""The tables of repositories, their members and deploy keys; must hold no question."""

from __future__ import annotations

from sqlalchemy import Column, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from keyrack.store.tables.columns import Flag, Moment, id_column, metadata, numbered, referring, seal_column

repositories = numbered(
    "repositories",
    id_column(),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False, index=True),
    Column("project_id", Integer, referring("projects", cascade=False)),
    Column("uid", String(32), nullable=False, unique=True),
    Column("path", String(255), nullable=False, unique=True),
    Column("visibility", Integer, nullable=False),
    Column("default_branch", String(255), nullable=False),
    Column("protect_default", Flag, nullable=False),
    Column("created_by", Integer, referring("users", cascade=False), index=True),
    Column("created_at", Moment, nullable=False),
    seal_column(),
)

repository_names = Table(
    "repository_names",
    metadata,
    # Paths that a repository had before: an old clone address still leads to it, with a hint.
    Column("path", String(255), primary_key=True),
    Column("repository_id", Integer, referring("repositories"), nullable=False, index=True),
    seal_column(),
)

repository_members = numbered(
    "repository_members",
    id_column(),
    Column("repository_id", Integer, referring("repositories"), nullable=False),
    Column("user_id", Integer, referring("users"), nullable=False, index=True),
    Column("role", String(16), nullable=False),
    Column("created_at", Moment, nullable=False),
    seal_column(),
    UniqueConstraint("repository_id", "user_id"),
)

deploy_keys = numbered(
    "deploy_keys",
    id_column(),
    Column("repository_id", Integer, referring("repositories"), nullable=False),
    Column("title", String(255), nullable=False),
    Column("application", String(255), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("can_push", Flag, nullable=False),
    Column("created_by", Integer, referring("users", cascade=False), index=True),
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment),
    Column("seal", LargeBinary(32), nullable=False),
    UniqueConstraint("repository_id", "fingerprint"),
)
