"""The first tables; must never change once released: a later revision does."""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make them all; an instant is whole microseconds since 1970."""
    _people()
    _secrets()
    _servers()
    _keys()
    _access()
    _repositories()
    _records()


def _create(name: str, *columns: Any) -> None:
    """A table whose ids are never used twice, not even after a delete."""
    op.create_table(name, *columns, sqlite_autoincrement=True)


def _create_keyed(name: str, *columns: Any) -> None:
    """A table with a key of its own, that no counter makes."""
    op.create_table(name, *columns)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _of(target: str, *, cascade: bool = True) -> ForeignKey:
    return ForeignKey(f"{target}.id", ondelete="CASCADE" if cascade else "SET NULL")


def _people() -> None:
    """Who there is."""
    _create(
        "workspaces",
        _id(),
        Column("uid", String(32), nullable=False, unique=True),
        Column("name", String(255), nullable=False, unique=True),
        Column("created_at", BigInteger, nullable=False),
    )
    _create(
        "projects",
        _id(),
        Column("uid", String(32), nullable=False, unique=True),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False),
        Column("name", String(255), nullable=False),
        UniqueConstraint("workspace_id", "name"),
    )
    _create(
        "users",
        _id(),
        Column("uid", String(32), nullable=False, unique=True),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False),
        Column("name", String(255), nullable=False),
        Column("role", String(16), nullable=False),
        Column("policies", JSON, nullable=False),
        Column("password_hash", Text),
        Column("disabled_at", BigInteger),
        Column("created_at", BigInteger, nullable=False),
        UniqueConstraint("workspace_id", "name"),
    )
    _create(
        "groups",
        _id(),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False),
        Column("name", String(255), nullable=False),
        Column("created_at", BigInteger, nullable=False),
        UniqueConstraint("workspace_id", "name"),
    )
    _create_keyed(
        "group_members",
        Column("group_id", Integer, _of("groups"), primary_key=True),
        Column("user_id", Integer, _of("users"), primary_key=True),
        Index("ix_group_members_user_id", "user_id"),
    )


def _secrets() -> None:
    """What proves who somebody is."""
    _create(
        "tokens",
        _id(),
        Column("user_id", Integer, _of("users"), nullable=False, index=True),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False),
        Column("kind", String(8), nullable=False),
        Column("name", String(255), nullable=False),
        Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
        Column("scopes", JSON, nullable=False),
        Column("details", JSON, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, index=True),
        Column("revoked_at", BigInteger),
    )
    _create_keyed(
        "access_keys",
        Column("id", String(128), primary_key=True),
        Column("user_id", Integer, _of("users"), nullable=False, index=True),
        Column("sealed_secret", LargeBinary, nullable=False),
        Column("description", String(255), nullable=False),
        Column("active", Boolean, nullable=False),
        Column("security_token_hash", LargeBinary(32)),
        Column("details", JSON, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, index=True),
    )


def _servers() -> None:
    """The hosts and their accounts."""
    _create(
        "servers",
        _id(),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False, index=True),
        Column("host", String(40), nullable=False, unique=True),
        Column("name", String(255), nullable=False),
        Column("address", String(255), nullable=False),
        Column("provider", String(255)),
        Column("mode", String(16), nullable=False),
        Column("revision", BigInteger, nullable=False),
        Column("applied_revision", BigInteger, nullable=False),
        Column("applied_at", BigInteger),
        Column("agent_secret_hash", LargeBinary(32), unique=True),
        Column("agent_version", String(64)),
        Column("os", String(64)),
        Column("os_version", String(64)),
        Column("enrolled_at", BigInteger),
        Column("seen_at", BigInteger),
        Column("sshd", JSON, nullable=False),
        Column("facts", JSON, nullable=False),
        Column("created_at", BigInteger, nullable=False),
        Column("updated_at", BigInteger, nullable=False),
    )
    _create_keyed(
        "server_tags",
        Column("server_id", Integer, _of("servers"), primary_key=True),
        Column("tag", String(64), primary_key=True),
        Index("ix_server_tags_tag", "tag"),
    )
    _create(
        "enrolments",
        _id(),
        Column("server_id", Integer, _of("servers"), nullable=False, index=True),
        Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
        Column("created_at", BigInteger, nullable=False),
        Column("expires_at", BigInteger, nullable=False),
        Column("used_at", BigInteger),
    )
    _create(
        "system_users",
        _id(),
        Column("server_id", Integer, _of("servers"), nullable=False),
        Column("username", String(32), nullable=False),
        Column("deletable", Boolean, nullable=False),
        Column("managed", Boolean, nullable=False),
        Column("deployment_key", Text),
        Column("created_at", BigInteger, nullable=False),
        UniqueConstraint("server_id", "username"),
    )


def _keys() -> None:
    """Public keys and whose they are."""
    _create(
        "credentials",
        _id(),
        Column("server_id", Integer, _of("servers"), nullable=False),
        Column("system_user_id", Integer, _of("system_users"), nullable=False, index=True),
        Column("label", String(255), nullable=False),
        Column("public_key", Text, nullable=False),
        Column("comment", Text, nullable=False),
        Column("fingerprint", String(64), nullable=False, index=True),
        Column("key_type", String(64), nullable=False),
        Column("temporary", Boolean, nullable=False),
        Column("expires_at", BigInteger, index=True),
        Column("restrictions", JSON, nullable=False),
        Column("created_by", Integer, _of("users", cascade=False)),
        Column("created_at", BigInteger, nullable=False),
        Column("revision", BigInteger, nullable=False),
        Column("seal", LargeBinary(32), nullable=False),
        UniqueConstraint("server_id", "label"),
    )
    _create(
        "user_keys",
        _id(),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False),
        Column("user_id", Integer, _of("users"), nullable=False, index=True),
        Column("title", Text),
        Column("public_key", Text),
        Column("comment", Text, nullable=False),
        Column("fingerprint", String(64)),
        Column("key_type", String(64)),
        Column("created_at", BigInteger, nullable=False),
        Column("seal", LargeBinary(32), nullable=False),
    )
    _create_keyed(
        "key_owners",
        Column("fingerprint", String(64), primary_key=True),
        Column("kind", String(8), nullable=False),
        Column("user_key_id", Integer, _of("user_keys"), index=True),
    )


def _access() -> None:
    """Who may log in where, and what must be refused."""
    _create(
        "grants",
        _id(),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False, index=True),
        Column("user_id", Integer, _of("users"), index=True),
        Column("group_id", Integer, _of("groups"), index=True),
        Column("server_id", Integer, _of("servers"), index=True),
        Column("tag", String(64), index=True),
        Column("system_user", String(32), quote=True, nullable=False),
        Column("restrictions", JSON, nullable=False),
        Column("expires_at", BigInteger, index=True),
        Column("created_at", BigInteger, nullable=False),
        Column("seal", LargeBinary(32), nullable=False),
    )
    _create_keyed(
        "revocations",
        Column("server_id", Integer, _of("servers"), primary_key=True),
        Column("fingerprint", String(64), primary_key=True),
        Column("public_key", Text, nullable=False),
        Column("revoked_at", BigInteger, nullable=False),
    )


def _repositories() -> None:
    """Git."""
    _create(
        "repositories",
        _id(),
        Column("workspace_id", Integer, _of("workspaces"), nullable=False),
        Column("project_id", Integer, _of("projects", cascade=False)),
        Column("uid", String(32), nullable=False, unique=True),
        Column("path", String(255), nullable=False, unique=True),
        Column("visibility", Integer, nullable=False),
        Column("default_branch", String(255), nullable=False),
        Column("protect_default", Boolean, nullable=False),
        Column("created_by", Integer, _of("users", cascade=False)),
        Column("created_at", BigInteger, nullable=False),
    )
    _create_keyed(
        "repository_names",
        Column("path", String(255), primary_key=True),
        Column("repository_id", Integer, _of("repositories"), nullable=False),
    )
    _create(
        "repository_members",
        _id(),
        Column("repository_id", Integer, _of("repositories"), nullable=False),
        Column("user_id", Integer, _of("users"), nullable=False, index=True),
        Column("role", String(16), nullable=False),
        Column("created_at", BigInteger, nullable=False),
        UniqueConstraint("repository_id", "user_id"),
    )
    _create(
        "deploy_keys",
        _id(),
        Column("repository_id", Integer, _of("repositories"), nullable=False),
        Column("title", String(255), nullable=False),
        Column("application", String(255), nullable=False),
        Column("public_key", Text, nullable=False),
        Column("comment", Text, nullable=False),
        Column("fingerprint", String(64), nullable=False, index=True),
        Column("can_push", Boolean, nullable=False),
        Column("created_by", Integer, _of("users", cascade=False)),
        Column("created_at", BigInteger, nullable=False),
        Column("last_used_at", BigInteger),
        Column("seal", LargeBinary(32), nullable=False),
        UniqueConstraint("repository_id", "fingerprint"),
    )


def _records() -> None:
    """What happened, and the instance's own notes."""
    _create_keyed(
        "key_uses",
        Column("fingerprint", String(64), primary_key=True),
        Column("server_id", Integer, primary_key=True, autoincrement=False),
        Column("last_used_at", BigInteger, nullable=False),
        Column("address", String(64), nullable=False),
    )
    _create(
        "sessions",
        _id(),
        Column("server_id", Integer, _of("servers"), nullable=False),
        Column("host_session", String(64), nullable=False),
        Column("username", String(32), nullable=False),
        Column("address", String(64), nullable=False),
        Column("fingerprint", String(64), nullable=False),
        Column("started_at", BigInteger, nullable=False),
        Column("ending", Boolean, nullable=False),
        UniqueConstraint("server_id", "host_session"),
    )
    _create(
        "events",
        _id(),
        Column("workspace_id", Integer, nullable=False),
        Column("at", BigInteger, nullable=False),
        Column("actor_id", Integer),
        Column("actor_name", Text, nullable=False),
        Column("token_id", Integer),
        Column("token_name", Text, nullable=False),
        Column("address", String(64), nullable=False),
        Column("door", String(16), nullable=False),
        Column("action", String(64), nullable=False),
        Column("outcome", String(16), nullable=False),
        Column("reason", Text, nullable=False),
        Column("target_kind", String(32), nullable=False),
        Column("target_id", Integer),
        Column("server_id", Integer),
        Column("summary", Text, nullable=False),
        Column("level", String(8), nullable=False),
        Column("details", JSON, nullable=False),
        Index("ix_events_workspace_id_id", "workspace_id", "id"),
        Index("ix_events_server_id_id", "server_id", "id"),
    )
    _create_keyed(
        "instance_facts",
        Column("name", String(64), primary_key=True),
        Column("value", Text, nullable=False),
    )
    _create_keyed(
        "changes",
        Column("server_id", Integer, primary_key=True, autoincrement=False),
        Column("change", BigInteger, nullable=False, index=True),
    )
