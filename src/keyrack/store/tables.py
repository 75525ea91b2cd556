"""The tables, once, for both databases; must hold no question and no rule beyond keys and uniqueness."""

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
    text,
)

from keyrack.store.columns import Flag, Json, Moment, id_column, index_where, metadata, numbered, referring, seal_column

IS_ALARM = "level = 'alarm'"
UNNOTICED = "noticed_at IS NULL AND expires_at IS NOT NULL"

workspaces = numbered(
    "workspaces",
    id_column(),
    Column("uid", String(32), nullable=False, unique=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
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
    # Signatures that did not hold, in a row, for an access key from an address.
    Column("access_key_id", String(128), referring("access_keys"), primary_key=True),
    Column("address", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", Moment, nullable=False),
)

servers = numbered(
    "servers",
    id_column(),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False, index=True),
    Column("host", String(40), nullable=False, unique=True),
    Column("name", String(255), nullable=False),
    Column("address", String(255), nullable=False),
    Column("provider", String(255)),
    Column("mode", String(16), nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("applied_revision", BigInteger, nullable=False),
    Column("applied_at", Moment),
    Column("agent_secret_hash", LargeBinary(32), unique=True),
    Column("agent_version", String(64)),
    Column("os", String(64)),
    Column("os_version", String(64)),
    Column("enrolled_at", Moment),
    Column("seen_at", Moment),
    Column("offline_after_seconds", Integer, nullable=False, server_default="0"),
    Column("offline_then", String(16), nullable=False, server_default="keep"),
    Column("sshd", Json, nullable=False),
    Column("facts", Json, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("updated_at", Moment, nullable=False),
    Column("sshd_revision", BigInteger),
    Column("sshd_changed_at", Moment),
    # A mark for each of the last revisions, the newest first.
    Column("lineage", String(512), nullable=False, server_default=text("''")),
    Column("applied_lineage", String(8), nullable=False, server_default=text("''")),
    Column("told_lineage", String(8), nullable=False, server_default=text("''")),
    Column("went_back_at", Moment),
    Column("compared_at", Moment),
    Column("agent_run", String(32)),
    Column("copied_at", Moment),
    seal_column(),
    # The sum of the seals of all rows that belong to it, see store/sealed.py; empty until the first change of one.
    Column("rows_sum", LargeBinary(32)),
    Column("frozen_at", Moment),
)

deleted_servers = Table(
    "deleted_servers",
    metadata,
    # Servers that were deleted and whose hosts must still be told; under the ids they had.
    Column("server_id", Integer, primary_key=True, autoincrement=False),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False),
    Column("host", String(40), nullable=False, unique=True),
    Column("name", String(255), nullable=False),
    Column("address", String(255), nullable=False),
    Column("agent_secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("revision", BigInteger, nullable=False),
    Column("remove_keys", Json, nullable=False),
    Column("deleted_at", Moment, nullable=False),
    Column("deleted_by", Text, nullable=False),
    Column("acknowledged_at", Moment),
    Column("seal", LargeBinary(32), nullable=False),
    Index("ix_deleted_servers_workspace_id_server_id", "workspace_id", "server_id"),
)

deleted_server_keys = Table(
    "deleted_server_keys",
    metadata,
    # What the host of a deleted server must refuse: every key that it was given or told to refuse before.
    Column("server_id", Integer, ForeignKey("deleted_servers.server_id", ondelete="CASCADE"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("public_key", Text, nullable=False),
    Index("ix_deleted_server_keys_fingerprint", "fingerprint"),
)

server_tags = Table(
    "server_tags",
    metadata,
    Column("server_id", Integer, referring("servers"), primary_key=True),
    Column("tag", String(64), primary_key=True),
    seal_column(),
    Index("ix_server_tags_tag", "tag"),
)

enrolments = numbered(
    "enrolments",
    id_column(),
    Column("server_id", Integer, referring("servers"), nullable=False, index=True),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False),
    Column("used_at", Moment),
    seal_column(),
)

system_users = numbered(
    "system_users",
    id_column(),
    Column("server_id", Integer, referring("servers"), nullable=False),
    Column("username", String(64), nullable=False),
    Column("deletable", Flag, nullable=False),
    Column("managed", Flag, nullable=False),
    Column("deployment_key", Text),
    Column("created_at", Moment, nullable=False),
    Column("revision", BigInteger),
    # The crypt(3) hash that the host is to set, encrypted: nobody who has the database learns it or has his own signed.
    Column("encrypted_password", LargeBinary),
    Column("deployment_key_asked_at", Moment),
    seal_column(),
    UniqueConstraint("server_id", "username"),
)

removed_accounts = Table(
    "removed_accounts",
    metadata,
    # Accounts that Keyrack had a host make and that must not exist there any more.
    Column("server_id", Integer, referring("servers"), primary_key=True),
    Column("username", String(32), primary_key=True),
    Column("removed_at", Moment, nullable=False),
    seal_column(),
)

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
    Column("delivered_at", Moment),
    Column("noticed_at", Moment),
    Column("break_glass", Flag),
    Column("confirmed_at", Moment),
    Column("frozen_at", Moment),
    UniqueConstraint("server_id", "label"),
    Index("ix_credentials_server_id_id", "server_id", "id"),
    Index("ix_credentials_server_id_expires_at", "server_id", "expires_at"),
    index_where("ix_credentials_undelivered", "server_id", "revision", condition="delivered_at IS NULL"),
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
    Column("confirmed_at", Moment),
    Column("frozen_at", Moment),
    index_where("ix_user_keys_unnoticed", "expires_at", condition=UNNOTICED),
)

key_owners = Table(
    "key_owners",
    metadata,
    # One key leads to one identity: the primary key refuses a second one, even when two requests race.
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
    Column("system_user", String(64), nullable=False),
    Column("restrictions", Json, nullable=False),
    Column("expires_at", Moment, index=True),
    Column("created_at", Moment, nullable=False),
    Column("seal", LargeBinary(32), nullable=False),
    Column("all_servers", Flag, index=True),
    Column("starts_at", Moment),
    Column("begun_at", Moment),  # when hosts were told that the start came
    Column("reason", Text),
    Column("noticed_at", Moment),
    Column("break_glass", Flag),
    index_where("ix_grants_break_glass", "workspace_id", condition="break_glass IS NOT NULL"),
    index_where("ix_grants_unnoticed", "expires_at", condition=UNNOTICED),
    index_where("ix_grants_to_begin", "starts_at", condition="begun_at IS NULL AND starts_at IS NOT NULL"),
)

revocations = Table(
    "revocations",
    metadata,
    # What a host must refuse: keys it was once given and that nothing on it lets in any more.
    Column("server_id", Integer, referring("servers"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("public_key", Text, nullable=False),
    Column("revoked_at", Moment, nullable=False),
    # The revision that carries it, and when the host first said that it obeys that one or a later one.
    Column("revision", BigInteger, nullable=False, server_default="0"),
    Column("confirmed_at", Moment),
    seal_column(),
    Index("ix_revocations_fingerprint", "fingerprint"),
    index_where("ix_revocations_unconfirmed", "server_id", "revision", condition="confirmed_at IS NULL"),
)

revoked_keys = Table(
    "revoked_keys",
    metadata,
    # Revoked everywhere: nobody registers one in this workspace until it is lifted.
    Column("workspace_id", Integer, referring("workspaces"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("revoked_by", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("revoked_at", Moment, nullable=False),
    seal_column(),
    Index("ix_revoked_keys_workspace_id_revoked_at", "workspace_id", "revoked_at"),
)

unmanaged_keys = numbered(
    "unmanaged_keys",
    # What a host found in files that sshd reads or would read, and that Keyrack did not put there.
    id_column(),
    Column("server_id", Integer, referring("servers"), nullable=False),
    Column("username", String(64), nullable=False),
    Column("path", String(1024), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("line", Integer, nullable=False),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("key_type", String(64), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("options", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("problem", Text, nullable=False),
    Column("in_force", Flag, nullable=False),
    Column("state", String(16), nullable=False),
    Column("found_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    UniqueConstraint("server_id", "username", "path", "fingerprint"),
)

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
    # Names a repository had before, so that an old clone address answers with a hint.
    Column("path", String(255), primary_key=True),
    Column("repository_id", Integer, referring("repositories"), nullable=False, index=True),
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

key_uses = Table(
    "key_uses",
    metadata,
    # Last accepted use of a key, per place: a server id, or 0 for Git.
    Column("fingerprint", String(64), primary_key=True),
    Column("server_id", Integer, primary_key=True, autoincrement=False),
    Column("last_used_at", Moment, nullable=False),
    Column("address", String(64), nullable=False),
)

sessions = numbered(
    "sessions",
    id_column(),
    Column("server_id", Integer, referring("servers"), nullable=False),
    Column("host_session", String(64), nullable=False),
    Column("username", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ending", Flag, nullable=False),
    UniqueConstraint("server_id", "host_session"),
)

told_documents = Table(
    "told_documents",
    metadata,
    # The last document of a host that obeys what this database does not know, as it hands it over, in pieces.
    Column("server_id", Integer, referring("servers"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
)

held_back = numbered(
    "held_back",
    # What a database that went back would do on a host against the last document that the host obeyed.
    id_column(),
    Column("server_id", Integer, referring("servers"), nullable=False, index=True),
    Column("kind", String(8), nullable=False),
    Column("username", String(64), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("options", Json, nullable=False),
    Column("until", Moment),
    Column("name", Text, nullable=False),
    # Whatever somebody entered later than this is a decision, and is not held back.
    Column("since", Moment, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("decided_at", Moment),
    seal_column(),
)

events = numbered(
    "events",
    id_column(),
    Column("workspace_id", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    Column("actor_id", Integer),
    Column("actor_name", Text, nullable=False),
    Column("token_id", Integer),
    Column("token_name", Text, nullable=False),
    Column("address", String(64), nullable=False),
    Column("channel", String(16), nullable=False),
    Column("action", String(64), nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("target_kind", String(32), nullable=False),
    Column("target_id", Integer),
    Column("server_id", Integer),
    Column("summary", Text, nullable=False),
    Column("level", String(8), nullable=False),
    Column("details", Json, nullable=False),
    Column("seal", LargeBinary(40)),  # see store/event_seals.py
    Index("ix_events_workspace_id_id", "workspace_id", "id"),
    Index("ix_events_server_id_id", "server_id", "id"),
    index_where("ix_events_alarms", "workspace_id", "id", condition=IS_ALARM),
)

instance_facts = Table(
    "instance_facts",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
