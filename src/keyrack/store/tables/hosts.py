"""The tables of servers and of what their hosts said; must hold no question."""

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

from keyrack.store.tables.columns import (
    Flag,
    Json,
    Moment,
    id_column,
    metadata,
    numbered,
    receipt_column,
    referring,
    seal_column,
)

# Two columns of `servers` have older names in databases (decision 437).
ROLLED_BACK_AT = "went_back_at"
"""When it was noted that a host obeys what this database does not know, as the database was rolled back."""
REPORTED_LINEAGE = "told_lineage"
"""The mark of the document that the host then reported as the last one it obeyed."""

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
    Column(REPORTED_LINEAGE, String(8), nullable=False, server_default=text("''")),
    Column(ROLLED_BACK_AT, Moment),
    Column("compared_at", Moment),
    Column("agent_run", String(32)),
    Column("copied_at", Moment),  # since when two machines use its host's identity (core/hosts/copies.py)
    seal_column(),
    # The sum of the seals of all rows that belong to it (store/sealing/sums.py); empty until the first change of one.
    Column("rows_sum", LargeBinary(32)),
    Column("frozen_at", Moment),
    receipt_column(),
    # When its host first acknowledged a revision since it was enrolled. It is under the seal, so that it shows where
    # others deleted all receipts of the host.
    Column("first_applied_at", Moment),
)

deleted_servers = Table(
    "deleted_servers",
    metadata,
    # Deleted servers, under the ids they had: their hosts get one last document, and acknowledge it.
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
    # What the host of a deleted server must refuse: all keys that it was given or told to refuse before.
    Column("server_id", Integer, ForeignKey("deleted_servers.server_id", ondelete="CASCADE"), primary_key=True),
    Column("fingerprint", String(64), primary_key=True),
    Column("public_key", Text, nullable=False),
    seal_column(),
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
    # The crypt(3) hash that the host is to set, encrypted: whoever has the database can neither read nor replace it.
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

sessions = numbered(
    "sessions",
    id_column(),
    Column("server_id", Integer, referring("servers"), nullable=False),
    Column("host_session", String(64), nullable=False),
    Column("username", String(64), nullable=False),
    Column("address", String(64), nullable=False),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("started_at", Moment, nullable=False),
    Column("ending", Flag, nullable=False),
    UniqueConstraint("server_id", "host_session"),
)

reported_documents = Table(
    "reported_documents",
    metadata,
    # The last document of a host that obeys what this database does not know, in pieces as the host sends it.
    Column("server_id", Integer, referring("servers"), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("text", Text, nullable=False),
)

held_back = numbered(
    "held_back",
    # Differences between a database that was rolled back and the last document that a host obeyed; not delivered to it.
    id_column(),
    Column("server_id", Integer, referring("servers"), nullable=False, index=True),
    Column("kind", String(8), nullable=False),
    Column("username", String(64), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False, index=True),
    Column("options", Json, nullable=False),
    Column("until", Moment),
    Column("name", Text, nullable=False),
    # What somebody changed after this instant is a decision, and is not held back.
    Column("since", Moment, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("decided_at", Moment),
    seal_column(),
)

host_keys = Table(
    "host_keys",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), nullable=False),
    Column("public_key", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("port", Integer, nullable=False),
    # shown: whether the host's last report had it; confirmed: whether somebody confirmed it. Shown and not confirmed is
    # an alarm.
    Column("shown", Flag, nullable=False),
    Column("confirmed", Flag, nullable=False),
    Column("first_at", Moment, nullable=False),
    Column("confirmed_at", Moment),
    Column("confirmed_by", Text),
    Column("seal", LargeBinary(32), nullable=False),
    UniqueConstraint("server_id", "fingerprint"),
    sqlite_autoincrement=True,
)

older_marks = Table(
    "older_marks",
    metadata,
    Column("server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    # marks: of this revision and of those before it, the newest first, as in servers.lineage.
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("marks", String(512), nullable=False),
)

reported_logins = Table(
    "reported_logins",
    metadata,
    # batch: the last that was taken, which a host sends again if it got no answer; events: how many logins of the hour
    # from hour_from on became events; left_out: how many others of that hour were only counted.
    Column("server_id", Integer, ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True),
    Column("batch", String(32), nullable=False),
    Column("hour_from", Moment, nullable=False),
    Column("events", Integer, nullable=False),
    Column("left_out", Integer, nullable=False),
)
