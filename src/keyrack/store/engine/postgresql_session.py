"""Sets in each session of PostgreSQL what Keyrack relies on, whatever server and role say; must know no table.

What a session cannot set is only checked: unfit() tells why nothing would work, lossy() what may lose changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

if TYPE_CHECKING:
    import psycopg  # not loaded on SQLite, where orphans.py imports this module: it takes nine megabytes

# A mark on each session; if it is there already, another connection had this session before.
_MARK = "keyrack.session"
_MARKED = f"SELECT current_setting('{_MARK}', true); SET {_MARK} = 'taken'"
# A backslash stands for itself; with the setting off, bytes would be changed on the way.
_PLAIN_STRINGS = "SET standard_conforming_strings = on"
# A command that waited for a workspace's lock must see what the command before it did, not the state at its own start.
_SEES_THE_NEWEST = "SET default_transaction_isolation = 'read committed'"
LOCK_SECONDS = 30
"""How long a statement waits for what another session locked (LOCK TABLE, VACUUM FULL, a transaction left open)."""
# A server or role set to lose the last commits in a crash is overruled; a stricter setting is not.
_ON_THE_DISK = (
    "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
)
# If the network breaks without the server's notice, it would keep the session for two hours, the system's default, and
# with it a workspace's lock or a row, for which everybody else waits, also a service that was restarted.
_ENDS_WITH_THE_NETWORK = """
    SELECT set_config(name, value, false)
    FROM (VALUES ('tcp_keepalives_idle', '10'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'),
                 ('tcp_user_timeout', '30000')) AS ours (name, value)
    WHERE current_setting(name, true) IS NOT NULL
"""
ORPHAN_SECONDS = 60
"""How long a session may be idle within a transaction; a server's own bound, if it has one, stays."""
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
    """The settings of the server with which a crash of its machine may lose acknowledged changes, or damage data."""
    asked = "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name"
    return tuple(str(row[0]) for row in connection.exec_driver_sql(asked))
