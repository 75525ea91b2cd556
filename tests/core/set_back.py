"""Sets a database back to before a migration, as others might; each new migration adds how it is undone."""

from __future__ import annotations

# By revision, the newest first: what undoes it.
UNDO: dict[str, tuple[str, ...]] = {
    "0405": ("ALTER TABLE servers DROP COLUMN first_applied_at",),
    "0390": (
        *(
            f"ALTER TABLE {table} RENAME COLUMN acknowledged_at TO {name}"
            for table, name in (
                ("credentials", "delivered_at"),
                ("revocations", "confirmed_at"),
                ("offboarding_hosts", "confirmed_at"),
                ("offboarding_git", "confirmed_at"),
            )
        ),
        *(
            f"DROP INDEX ix_{table}_unacknowledged"
            for table in ("credentials", "revocations", "offboarding_hosts", "offboarding_git")
        ),
        "CREATE INDEX ix_credentials_undelivered ON credentials (server_id, revision) WHERE delivered_at IS NULL",
        "CREATE INDEX ix_revocations_unconfirmed ON revocations (server_id, revision) WHERE confirmed_at IS NULL",
        "CREATE INDEX ix_offboarding_hosts_unconfirmed ON offboarding_hosts (server_id, revision)"
        " WHERE confirmed_at IS NULL",
        "CREATE INDEX ix_offboarding_git_unconfirmed ON offboarding_git (endpoint_id) WHERE confirmed_at IS NULL",
        "UPDATE daily_tallies SET what = replace(what, 'acknowledged ', 'delivered ')",
    ),
    "0375": (
        *(f"ALTER TABLE {table} DROP COLUMN receipt" for table in ("servers", "revocations", "offboarding_hosts")),
        *(f"ALTER TABLE {table} DROP COLUMN seal" for table in ("offboarding_hosts", "offboarding_git")),
        "DROP INDEX ix_offboarding_hosts_server_id",
    ),
    "0370": (
        "DROP TABLE reported_documents",
        "DROP TABLE reported_logins",
        "CREATE TABLE told_documents (server_id INTEGER, number INTEGER, text TEXT)",
        "CREATE TABLE told_logins (server_id INTEGER, batch TEXT, hour_from BIGINT, events INTEGER, left_out INTEGER)",
    ),
    "0360": tuple(f"DROP INDEX ix_{one}" for one in ("sessions_fingerprint", "web_sessions_used_at", "tokens_listed")),
    "0355": tuple(f"ALTER TABLE {table} DROP COLUMN renewed_at" for table in ("credentials", "user_keys", "grants")),
    "0341": ("ALTER TABLE web_sessions DROP COLUMN used_at",),
    "0340": tuple(f"ALTER TABLE {table} DROP COLUMN seal" for table in ("repository_names", "deleted_server_keys")),
    "0300": ("DROP TABLE key_policies",),
    "0285": ("DROP INDEX ix_webhook_deliveries_webhook_id_id",),
    "0240": ("DROP TABLE older_marks",),
    "0235": ("ALTER TABLE events DROP COLUMN seal",),
}


def to_before(revision: str, *, at: str) -> tuple[str, ...]:
    """The statements that take a database to before a migration; at: the revision that it then says it is at."""
    newest = list(UNDO)
    undone = newest[: newest.index(revision) + 1]
    return (*(one for name in undone for one in UNDO[name]), f"UPDATE alembic_version SET version_num = '{at}'")
