"""Sets a session of PostgreSQL to what Keyrack relies on, whatever server, database and role say; must know no table.

What a session cannot set for itself is told: in words where nothing would work, as a warning where changes may be
lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

if TYPE_CHECKING:
    import psycopg  # nine megabytes, which a service on SQLite, whose looks name a bound of this module, has no use for

# What a session is marked with; who finds it already has a session that another connection had before.
_MARK = "keyrack.session"
_MARKED = f"SELECT current_setting('{_MARK}', true); SET {_MARK} = 'taken'"
# A backslash is one; with the setting off, values that are bytes arrive as others.
_PLAIN_STRINGS = "SET standard_conforming_strings = on"
# Whoever waited for the lock of a workspace must see what the one before him did, and not what there was as he began to
# wait.
_SEES_THE_NEWEST = "SET default_transaction_isolation = 'read committed'"
LOCK_SECONDS = 30
"""How long a statement waits for what another session locked (LOCK TABLE, VACUUM FULL, a transaction left open)."""
# A server or role set to lose the last commits in a crash is overruled; a stricter setting is not.
_ON_THE_DISK = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
# The network between may end without the server's being told. It would keep such a session for the two hours of its
# system, and a session that has the lock of a workspace, or a row, keeps that from everybody: also from who is started
# anew.
_ENDS_WITH_THE_NETWORK = """
    SELECT set_config(name, value, false)
    FROM (VALUES ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'),
                 ('tcp_user_timeout', '30000')) AS ours (name, value)
    WHERE current_setting(name, true) IS NOT NULL
"""
ORPHAN_SECONDS = 60
"""How long a change may be under way without a word of ours; what is stricter already stays."""
_ENDS_WITHOUT_US = """
    SELECT set_config('idle_in_transaction_session_timeout', '{}s', false)
    WHERE current_setting('idle_in_transaction_session_timeout') = '0'
"""

SHARED = (
    "The database's address leads to a pooler that hands sessions from one transaction to the next, as PgBouncer does "
    "with pool_mode = transaction. Keyrack keeps settings, prepared statements and LISTEN in its sessions. Set "
    "pool_mode = session for it, or use the address of the server itself."
)
_ENCODING = (
    "The database has the encoding {encoding}, which cannot hold every name. Nothing was made in it. Make it anew with "
    "createdb --encoding UTF8 --template template0."
)


def begin(raw: psycopg.Connection[Any], *, writer: bool, patient: bool = False) -> bool:
    """Set up a new session; False where another connection had it before, so that nothing set here would stay.

    patient: it waits for a lock as long as it takes.
    """
    raw.autocommit = True
    settings = [*((_SEES_THE_NEWEST, _ON_THE_DISK) if writer else ("SET default_transaction_read_only = on",))]
    settings.append(_ENDS_WITH_THE_NETWORK)
    if writer and not patient:
        settings.append(_ENDS_WITHOUT_US.format(ORPHAN_SECONDS))
    if not patient:
        settings.append(f"SET lock_timeout = '{LOCK_SECONDS}s'")
    row = raw.execute("; ".join((_MARKED, _PLAIN_STRINGS, *settings))).fetchone()
    raw.autocommit = False
    return not (row and row[0])


def unfit(connection: Connection) -> str:
    """Why Keyrack's tables must not be made in this database, in words; "" where they may."""
    encoding = str(connection.exec_driver_sql("SHOW server_encoding").scalar_one())
    return "" if encoding == "UTF8" else _ENCODING.format(encoding=encoding)


def lossy(connection: Connection) -> tuple[str, ...]:
    """The settings of the server by which a crash of its machine may take what was acknowledged, or more."""
    asked = "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name"
    return tuple(str(row[0]) for row in connection.exec_driver_sql(asked))
