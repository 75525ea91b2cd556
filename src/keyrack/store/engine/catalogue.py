"""Finds by the database's catalogue what our tables lack and what others added to them; must change nothing.

Only names are compared: of tables, of columns, and of the columns of keys. Types, defaults and conditions are written
differently by database versions, restores and old migrations, which would be false alarms.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from sqlalchemy import Connection, Table, UniqueConstraint

from keyrack.store.changes import changes

REVISION = "alembic_version"
_REVISIONS = "SELECT version_num FROM alembic_version"


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that others added to a table of ours. kind: in words, such as "trigger"."""

    kind: str
    name: str
    table: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name} on {self.table}"


def missing(connection: Connection, head: str) -> tuple[str, ...]:
    """Which tables and columns are missing, or that the database does not name exactly one revision; in words.

    head: the revision that this version works with. At another revision tables differ, so they are not compared.
    """
    columns: dict[str, set[str]] = {}
    for table, column in _asked(connection, _COLUMNS):
        columns.setdefault(table, set()).add(column)
    if REVISION not in columns:
        return (f"table {REVISION} is missing",)
    if "version_num" not in columns[REVISION]:
        return (f"column {REVISION}.version_num is missing",)
    revisions_there = revisions(connection)
    if len(revisions_there) != 1:
        return (f"table {REVISION} has {len(revisions_there)} rows in place of one",)
    return _missing(columns) if revisions_there == [head] else ()


def revisions(connection: Connection) -> list[str]:
    """The revisions that the database names, which should be one."""
    return sorted(str(row[0]) for row in connection.exec_driver_sql(_REVISIONS))


def _missing(columns: dict[str, set[str]]) -> tuple[str, ...]:
    problems = []
    for name, ours in sorted(changes.metadata.tables.items()):
        if name not in columns:
            problems.append(f"table {name} is missing")
        else:
            problems += [
                f"column {name}.{column.name} is missing" for column in ours.c if column.name not in columns[name]
            ]
    return tuple(problems)


def is_begun(connection: Connection) -> bool:
    """Whether Keyrack's tables are there, by one whose name no other program is likely to use."""
    return any(table == "system_users" for table, _ in _asked(connection, _COLUMNS))


def unlinked(connection: Connection) -> tuple[str, ...]:
    """Which primary, unique and foreign keys are missing from our tables that exist, in words."""
    keys: dict[tuple[str, str], set[str]] = {}
    for table, name, column in _asked(connection, _KEYS):
        keys.setdefault((table, name), set()).add(column)
    there = {(table, frozenset(columns)) for (table, _), columns in keys.items()}
    links: dict[tuple[str, str], tuple[str, set[str]]] = {}
    for table, name, other, column in _asked(connection, _LINKS):
        links.setdefault((table, name), (other, set()))[1].add(column)
    linked = {(table, other, frozenset(columns)) for (table, _), (other, columns) in links.items()}
    tables = {table for table, _ in _asked(connection, _COLUMNS)}
    problems = []
    for name, ours in sorted(changes.metadata.tables.items()):
        if name not in tables:
            continue
        problems += [f"unique {_shown(one)} on {name} is missing" for one in _unique(ours) if (name, one) not in there]
        problems += [
            f"foreign key {_shown(one)} on {name} is missing"
            for other, one in _foreign_keys(ours)
            if (name, other, one) not in linked
        ]
    return tuple(problems)


def foreign(connection: Connection) -> tuple[Foreign, ...]:
    """What others added to our tables that changes what is read or written: no plain indexes, and no row security that
    does not apply to us.
    """
    rows = sorted(_asked(connection, _FOREIGN))
    return tuple(Foreign(kind, name, table) for table, kind, name in rows)


def _shown(columns: Iterable[str]) -> str:
    return f"({', '.join(sorted(columns))})"


def _asked(connection: Connection, question: dict[str, str]) -> list[tuple[str, ...]]:
    """Rows of text about our tables."""
    names = (*changes.metadata.tables, REVISION)
    if connection.dialect.name == "sqlite":
        ours = {name.lower(): name for name in names}
        rows = connection.exec_driver_sql(_OURS + question["sqlite"], (json.dumps(list(ours)),)).fetchall()
        return [(ours[row[-1].lower()], *map(str, row[:-1])) for row in rows if row[-1].lower() in ours]
    rows = connection.exec_driver_sql(question["postgresql"], {"names": list(names)}).fetchall()
    return [(str(row[-1]), *map(str, row[:-1])) for row in rows]


@cache
def _unique(table: Table) -> tuple[frozenset[str], ...]:
    sets = [[column.name for column in table.primary_key]]
    sets += [[column.name for column in one.columns] for one in table.constraints if isinstance(one, UniqueConstraint)]
    sets += [[column.name for column in index.columns] for index in table.indexes if index.unique]
    return tuple(sorted(map(frozenset, sets), key=sorted))


@cache
def _foreign_keys(table: Table) -> tuple[tuple[str, frozenset[str]], ...]:
    return tuple(
        sorted(
            ((key.referred_table.name, frozenset(key.column_keys)) for key in table.foreign_key_constraints),
            key=lambda key: (key[0], sorted(key[1])),
        )
    )


# Only our tables: to look into an operator's virtual table fails if its module is not loaded.
_OURS = """
WITH m AS (SELECT name FROM sqlite_master WHERE type = 'table' AND lower(name) IN (SELECT value FROM json_each(?)))
"""
# The last column of each is the table's name. On SQLite an integer primary key has no index.
_COLUMNS = {
    "sqlite": "SELECT c.name, m.name FROM m JOIN pragma_table_xinfo(m.name) c",
    "postgresql": """
SELECT a.attname, n FROM unnest(%(names)s::text[]) n
JOIN pg_catalog.pg_class c ON c.oid = to_regclass(quote_ident(n)) AND c.relkind IN ('r', 'p', 'f')
JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
""",
}
_KEYS = {
    "sqlite": """
SELECT l.name, i.name, m.name FROM m JOIN pragma_index_list(m.name) l JOIN pragma_index_info(l.name) i
WHERE l."unique" AND NOT l.partial AND i.name IS NOT NULL
UNION ALL SELECT 'primary key', c.name, m.name FROM m JOIN pragma_table_info(m.name) c WHERE c.pk
""",
    "postgresql": """
SELECT i.indexrelid::text, a.attname, n FROM unnest(%(names)s::text[]) n
JOIN pg_catalog.pg_index i ON i.indrelid = to_regclass(quote_ident(n))
    AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
""",
}
_LINKS = {
    "sqlite": """
SELECT f.id, f."table", f."from", m.name FROM m JOIN pragma_foreign_key_list(m.name) f
""",
    "postgresql": """
SELECT k.oid::text, o.relname, a.attname, n FROM unnest(%(names)s::text[]) n
JOIN pg_catalog.pg_constraint k ON k.conrelid = to_regclass(quote_ident(n)) AND k.contype = 'f'
JOIN pg_catalog.pg_class o ON o.oid = k.confrelid
JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
""",
}
_FOREIGN = {
    "sqlite": """
SELECT 'trigger', name, tbl_name FROM sqlite_master WHERE type = 'trigger'
UNION ALL SELECT 'view', name, name FROM sqlite_master WHERE type = 'view'
""",
    "postgresql": """
WITH ours AS (
    SELECT n AS name, c.oid, c.relkind FROM unnest(%(names)s::text[]) n
    JOIN pg_catalog.pg_class c ON c.oid = to_regclass(quote_ident(n))
)
SELECT 'trigger', t.tgname, o.name FROM ours o JOIN pg_catalog.pg_trigger t ON t.tgrelid = o.oid
WHERE NOT t.tgisinternal AND t.tgenabled <> 'D'
UNION ALL SELECT 'rule', r.rulename, o.name FROM ours o JOIN pg_catalog.pg_rewrite r ON r.ev_class = o.oid
WHERE r.rulename <> '_RETURN' AND r.ev_enabled <> 'D'
UNION ALL SELECT CASE relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' ELSE 'foreign table' END, name, name FROM ours
WHERE relkind NOT IN ('r', 'p')
UNION ALL SELECT 'row security', 'that hides rows from us', name FROM ours
WHERE relkind IN ('r', 'p') AND row_security_active(oid)
UNION ALL SELECT DISTINCT 'a switch-off of', 'foreign keys', o.name
FROM ours o JOIN pg_catalog.pg_trigger t ON t.tgrelid = o.oid WHERE t.tgisinternal AND t.tgenabled = 'D'
UNION ALL SELECT 'inheriting table', c.relname, o.name FROM ours o
JOIN pg_catalog.pg_inherits h ON h.inhparent = o.oid AND o.relkind = 'r'
JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid
""",
}
