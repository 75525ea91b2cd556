"""The tables of people who were removed everywhere, and of who has acknowledged it; must hold no question."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from keyrack.store.tables.columns import (
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

offboardings = numbered(
    "offboardings",
    # People who were removed everywhere, and what it takes to give their access back. The user may be deleted by now.
    id_column(),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False),
    Column("user_id", Integer, nullable=False, index=True),
    Column("user_name", String(255), nullable=False),
    Column("asked_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("undo_until", Moment, nullable=False),
    # gone: what was deleted, in names; kept: the deleted rows that undoing inserts again.
    Column("gone", Json, nullable=False),
    Column("kept", Json, nullable=False),
    Column("undone_at", Moment),
    Column("undone_by", Text),
    seal_column(),
    Index("ix_offboardings_workspace_id_id", "workspace_id", "id"),
)

offboarding_hosts = Table(
    "offboarding_hosts",
    metadata,
    # The hosts of an offboarding, and when each acknowledged it. The server may be deleted by now.
    Column("offboarding_id", Integer, referring("offboardings"), primary_key=True),
    Column("server_id", Integer, primary_key=True, autoincrement=False, index=True),
    Column("name", String(255), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("acknowledged_at", Moment),
    receipt_column(),
    seal_column(),
    index_where("ix_offboarding_hosts_unacknowledged", "server_id", "revision", condition="acknowledged_at IS NULL"),
)

git_endpoints = numbered(
    "git_endpoints",
    # The processes that serve Git over SSH, and when each was last heard of.
    id_column(),
    Column("name", String(255), nullable=False),
    Column("seen_at", Moment, nullable=False),
)

offboarding_git = Table(
    "offboarding_git",
    metadata,
    # The Git endpoints of an offboarding, and when each said that no transfer of that person runs there any more.
    Column("offboarding_id", Integer, referring("offboardings"), primary_key=True),
    Column("endpoint_id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(255), nullable=False),
    Column("acknowledged_at", Moment),
    Column("stopped", Integer, nullable=False),
    seal_column(),
    index_where("ix_offboarding_git_unacknowledged", "endpoint_id", condition="acknowledged_at IS NULL"),
)
