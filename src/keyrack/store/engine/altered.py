"""Which errors of a database say that its tables are not as Keyrack made them; must ask it nothing."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

WRITE_LOST = (
    "The database took a change and did not make it: a trigger, a rule or a policy of somebody else's is in the way. "
    "Nothing of it was kept. Look for it in the database, and drop it."
)
_LACKS = (
    "The tables in the database are not as this version of Keyrack made them ({reason}). Somebody else changed them, "
    "or a later version did. Put back what is missing, or restore a backup; Keyrack makes none of it anew by itself."
)

_ID_IN_USE = (
    "The database gives ids out that are in use already ({reason}): its sequences were set back, or were not copied "
    "with the rows, as PostgreSQL's logical replication does not. Nothing of the change was kept. Set each on beyond "
    "the highest id: in PostgreSQL by setval(), in SQLite in sqlite_sequence."
)

_UNIQUE_VIOLATION = "23505"
_SAME_ID_ON_SQLITE = re.compile(r"UNIQUE constraint failed: \w+\.id$")
_KEY_IS_ID = re.compile(r"Key \(id\)=\(\d+\) ")

NAMED = 3
"""How many differences are named; of the others only the number is given."""
# duplicate_table, duplicate_column, duplicate_object
_THERE = ("42P07", "42701", "42710")
_THERE_ON_SQLITE = re.compile(r"already exists|duplicate column name")

# division_by_zero, feature_not_supported: docs "PostgreSQL Error Codes". No question of ours divides but to count.
_NONE_WRITTEN, _UNSUPPORTED = "22012", "0A000"
_REWRITES = "RewriteQuery"
"""Where the server applies rules; feature_not_supported alone also is a plan that a migration made stale."""

# undefined_table, undefined_column, undefined_function (an operator for another type), datatype_mismatch, wrong kind of
# object, a constraint that ON CONFLICT needs, a generated column, a view that takes no rows, another schema.
_NOT_OURS = ("42P01", "42703", "42883", "42804", "42809", "42P10", "428C9", "55000", "3F000")
_NOT_OURS_ON_SQLITE = re.compile(
    r"no such (?:table|column|view|index)\b|has no column named|has \d+ columns but|because it is a view"
    r"|ON CONFLICT clause does not match|cannot (?:INSERT into|UPDATE) generated column"
)


def is_altered(error: BaseException) -> bool:
    """Whether an error says that others changed tables, or that the database accepted a write and did not make it."""
    return is_write_lost(error) or is_lacking(error) or _is_id_in_use(error)


def is_write_lost(error: BaseException) -> bool:
    """Whether a write that must write one row wrote none.

    On PostgreSQL such a statement divides by the number of rows it wrote (prepared.py), so that it fails with
    division_by_zero for none; where a rule would rewrite it the server refuses it as a whole.
    """
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state == _UNSUPPORTED:
        return getattr(getattr(error.orig, "diag", None), "source_function", None) == _REWRITES
    return state == _NONE_WRITTEN


def words(error: BaseException) -> str:
    """The message for such an error. It names what is missing, and contains no value of a row."""
    if is_write_lost(error):
        return WRITE_LOST
    cause = getattr(error, "orig", None) or error
    reason = str(cause).strip().partition("\n")[0]
    return _ID_IN_USE.format(reason=reason) if _is_id_in_use(error) else in_words([reason])


def in_words(differing: Sequence[str]) -> str:
    """The message for tables that differ; differing: the differences in words."""
    more = f"; and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
    return _LACKS.format(reason="; ".join(differing[:NAMED]) + more)


def is_there_already(error: BaseException) -> bool:
    """Whether an error says that a table or column of this name exists already."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.OperationalError):
        return _THERE_ON_SQLITE.search(str(cause)) is not None
    return getattr(cause, "sqlstate", None) in _THERE


def _is_id_in_use(error: BaseException) -> bool:
    """Whether the database gave a new row the id of another row."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.IntegrityError):
        return _SAME_ID_ON_SQLITE.search(str(cause)) is not None
    if getattr(cause, "sqlstate", None) != _UNIQUE_VIOLATION:
        return False
    return _KEY_IS_ID.match(str(getattr(getattr(cause, "diag", None), "message_detail", None) or "")) is not None


def is_lacking(error: BaseException) -> bool:
    """Whether an error says that a table or column of a question is missing or is not as Keyrack made it."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.OperationalError):
        is_general = getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
        return is_general and _NOT_OURS_ON_SQLITE.search(str(cause)) is not None
    return isinstance(error, DBAPIError) and getattr(cause, "sqlstate", None) in _NOT_OURS
