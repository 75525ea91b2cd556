"""Finds migrations that a database never got although its revision is above theirs; must change nothing.

A few were inserted below others that were in use already: databases from before that have a revision above theirs.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

# By revision what it made: names of tables, indexes or columns of servers, of which any shows that it ran.
MARKS: dict[str, tuple[str, ...]] = {
    "0003": ("removed_accounts",),
    "0004": ("access_key_failures",),
    "0005": ("found_keys", "unmanaged_keys"),
    "0018": ("revoked_keys",),
    "0019": ("deleted_servers",),
    "0011": ("held_back",),
    "0115": ("servers.agent_run",),
    "0080": ("expired_keys",),
    "0081": ("webhooks",),
    "0082": ("ix_grants_break_glass",),
    "0090": ("web_sessions",),
    "0070": ("host_keys",),
    "0083": ("ix_access_requests_open",),
    "0180": ("told_logins", "reported_logins"),
    "0162": ("ix_events_alarms",),
    "0230": ("ix_expired_keys_user_id_expired_at",),
}

_NAMES = {
    "sqlite": "SELECT name FROM sqlite_master UNION ALL SELECT 'servers.' || name FROM pragma_table_info('servers')",
    "postgresql": (
        "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace UNION ALL"
        " SELECT 'servers.' || attname FROM pg_attribute WHERE attrelid = to_regclass('servers') AND NOT attisdropped"
    ),
}


def among(connection: Connection, revisions: Iterable[str]) -> tuple[str, ...]:
    """Those of these revisions, oldest first, whose marks the database lacks."""
    names = set(connection.exec_driver_sql(_NAMES[connection.dialect.name]).scalars())
    return tuple(one for one in revisions if one in MARKS and names.isdisjoint(MARKS[one]))
