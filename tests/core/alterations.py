"""Kinds of alteration by somebody who may write to the database and knows how Keyrack seals: each changes as little as
it can, or what checking one row alone does not show.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Table, and_, delete, insert, update

from keyrack.store.sealing import seals
from keyrack.store.sealing.seals import SEALED_TABLES

Rows = dict[str, list[dict[str, Any]]]
MARK = "á"
SMALLEST = (timedelta(microseconds=1), timedelta(milliseconds=1), timedelta(seconds=1))


def named(table: Table, row: Mapping[str, Any]) -> Any:
    """The condition that a row of this table is this one."""
    return and_(*(column == row[column.name] for column in table.primary_key))


def _some(now: Rows, chance: random.Random, fits: Callable[[str, Any], bool], least: int = 1) -> tuple[Table, str]:
    """A table and a sealed column of which at least so many rows have a value that fits."""
    having = [
        (table, name)
        for table in SEALED_TABLES
        for name in seals.column_names(table)
        if sum(fits(name, row[name]) for row in now[table.name]) >= least
    ]
    return chance.choice(having)


def case(connection: Connection, now: Rows, chance: random.Random) -> str:
    """A text in other letters, which some databases take for the same."""
    table, name = _some(now, chance, lambda _, value: isinstance(value, str) and value.swapcase() != value)
    row = chance.choice([row for row in now[table.name] if isinstance(row[name], str)])
    connection.execute(update(table).where(named(table, row)).values({name: row[name].swapcase()}))
    return f"{table.name}.{name}"


def time(connection: Connection, now: Rows, chance: random.Random) -> str:
    """A time that differs by the least, or is kept less exactly."""
    table, name = _some(now, chance, lambda _, value: isinstance(value, datetime))
    row = chance.choice([row for row in now[table.name] if row[name] is not None])
    at: datetime = row[name]
    given = chance.choice((at + chance.choice(SMALLEST), at - chance.choice(SMALLEST), at.replace(microsecond=0)))
    connection.execute(update(table).where(named(table, row)).values({name: given}))
    return f"{table.name}.{name}"


def blanks(connection: Connection, now: Rows, chance: random.Random) -> str:
    """A text with what nobody sees: a blank, an empty sign, a letter composed in another way."""
    table, name = _some(now, chance, lambda _, value: isinstance(value, str))
    row = chance.choice([row for row in now[table.name] if isinstance(row[name], str)])
    given = chance.choice((row[name] + " ", " " + row[name], row[name] + "\u200b", row[name] + MARK, row[name] + "\n"))
    connection.execute(update(table).where(named(table, row)).values({name: given}))
    return f"{table.name}.{name}"


def one_column(connection: Connection, now: Rows, chance: random.Random) -> str:
    """Two rows take each other's value of one column that is sealed."""
    table, name = _some(now, chance, lambda _, value: value is not None, least=2)
    one, other = chance.sample(now[table.name], 2)
    if table.c[name].primary_key or table.c[name].unique:
        connection.execute(delete(table).where(named(table, other)))
        connection.execute(update(table).where(named(table, one)).values({name: other[name]}))
        connection.execute(insert(table).values(**{**other, name: one[name]}))
    else:
        for row, value in ((one, other[name]), (other, one[name])):
            connection.execute(update(table).where(named(table, row)).values({name: value}))
    return f"{table.name}.{name}"


def other_seal(connection: Connection, now: Rows, chance: random.Random) -> str:
    """A row takes the seal of another one, of its table or of another, or a part of its own."""
    table = chance.choice([table for table in SEALED_TABLES if now[table.name]])
    row = chance.choice(now[table.name])
    others = [other["seal"] for rows in now.values() for other in rows if other.get("seal") not in (None, row["seal"])]
    given = chance.choice((chance.choice(others), row["seal"][:-1], row["seal"][:16], bytes(32), b""))
    connection.execute(update(table).where(named(table, row)).values(seal=given))
    return table.name


def all_but_newest(connection: Connection, now: Rows, chance: random.Random) -> str:
    """A table is emptied, and all of it put back but the newest row: nothing that is there is wrong."""
    table = chance.choice([table for table in SEALED_TABLES if now[table.name]])
    rows = sorted(now[table.name], key=lambda row: [row[column.name] for column in table.primary_key])
    if table.name in ("servers", "users", "groups", "repositories", "deleted_servers"):
        # What hangs on the others would go with them.
        connection.execute(delete(table).where(named(table, rows[-1])))
        return table.name
    connection.execute(delete(table))
    if rows[:-1]:
        connection.execute(insert(table), rows[:-1])
    return table.name


def shift(connection: Connection, now: Rows, chance: random.Random) -> str:
    """All rows of a table have the id of the one before, as after a restore without the first one."""
    having = [table for table in SEALED_TABLES if "id" in table.c and table.c.id.type.python_type is int]
    table = chance.choice([table for table in having if now[table.name]])
    for row in sorted(now[table.name], key=lambda row: int(row["id"])):
        connection.execute(update(table).where(table.c.id == row["id"]).values(id=row["id"] + 1_000_000))
    for row in now[table.name]:
        moved = table.c.id == row["id"] + 1_000_000
        connection.execute(update(table).where(moved).values(id=row["id"] + 1))
    return table.name


def owners(connection: Connection, now: Rows, chance: random.Random) -> str:
    """All that one workspace, user, server, group or repository has is another's."""
    names = ("workspace_id", "user_id", "server_id", "group_id", "repository_id")
    having = [
        (table, name)
        for table in SEALED_TABLES
        for name in names
        if name in table.c and len({row[name] for row in now[table.name]} - {None}) > 0
    ]
    table, name = chance.choice(having)
    known = {row[name] for row in now[table.name]} - {None}
    old = chance.choice(sorted(known))
    new = chance.choice([one for one in (1, 2, 3, *known) if one != old])
    connection.execute(update(table).where(table.c[name] == old).values({name: new}))
    return f"{table.name}.{name}"


KINDS = {
    "other case": case,
    "other time": time,
    "unseen signs": blanks,
    "swap of one column": one_column,
    "other seal": other_seal,
    "all but the newest": all_but_newest,
    "ids shifted": shift,
    "another owner's": owners,
}
