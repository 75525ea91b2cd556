"""Whoever can write to the database alone gains nothing: alterations at random, each found and named, none opens."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import Connection, Table, delete, insert, select, update
from sqlalchemy.exc import DBAPIError, StatementError

from keyrack import app
from keyrack.core import next_steps
from keyrack.core.audit import events
from keyrack.core.git import access, repositories
from keyrack.core.hosts import documents, enrolment, servers
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, damaged_rows, grants, requests, revocation, user_keys, who_can
from keyrack.core.people import access_keys, actors, basic_access, groups, tokens
from keyrack.core.people import users as people
from keyrack.errors import Refusal
from keyrack.model import Actor, Role, User
from keyrack.ssh.public_key import parse
from keyrack.store.git import git_access
from keyrack.store.people import users
from keyrack.store.sealing import sealed, seals, tree_nodes
from keyrack.store.sealing.seals import SEAL, SEALED_TABLES
from keyrack.store.tables import access_tree as tree
from keyrack.store.tables import repository_names
from tests.core import alterations
from tests.core.all_damaged_rows import damaged
from tests.core.background_check import alarms, check_all_rows
from tests.core.conftest import Team, actor, make_team
from tests.core.keys_for_tests import fresh_line
from tests.core.undone_transaction import DatabaseInTransaction, Undo

PARTS = 4
"""Tests that share the alterations, each with some of its own: side by side where there are processors for that."""
ALTERATIONS = (1000 if os.environ.get("KEYRACK_LONG") else 40) // PARTS
OWNERS_TOKEN = "a-token-that-nobody-else-has"
PROJECT = "aa2d97d7e62c4b7da3ffdfc11551f878"
TABLES: tuple[Table, ...] = (*SEALED_TABLES, tree)
Rows = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class World:
    """Mallory had a way in of each kind, and has none any more; older: the rows as they were while she had."""

    team: Team
    mallory: User
    evil: str
    former: tuple[str, int]
    token: str
    access_key: tuple[str, str]
    path: str
    older: Rows
    stranger: Actor

    def gained(self, instance: Instance) -> list[str]:
        """What mallory can do as the database is now."""
        ways = []
        with contextlib.suppress(Refusal):
            signed = documents.signed(instance, self.team.server.id)
            if signed is not None:
                document = json.loads(signed.text)
                mine = parse(self.evil).canonical
                ways += [name for name, lines in document["users"].items() if mine in [line["key"] for line in lines]]
        with contextlib.suppress(Refusal):
            found = who_can.find(instance, self.team.owner, server=str(self.team.server.id))
            ways += ["who can" for way in found.items if way.reason.public_key == parse(self.evil).canonical]
        with contextlib.suppress(Refusal):
            tokens.authenticate(instance, self.token, address="203.0.113.1", channel="test")
            ways.append("token")
        with contextlib.suppress(Refusal):
            basic_access.authenticate(instance, *self.access_key, address="203.0.113.1", channel="test")
            ways.append("access key")
        holder = access.holder_of(instance, parse(self.evil).fingerprint)
        with contextlib.suppress(Refusal):
            if holder is not None:
                access.decide(instance, holder, "fetch", self.path)
                ways.append("git")
        path, led_to = self.former
        reached = instance.database.read(lambda connection: git_access.repository_at(connection, path))
        if reached is not None and reached.id != led_to:
            ways.append("another repository by a former path")
        return ways


@pytest.fixture
def world(team: Team) -> World:
    instance, owner = team.instance, team.owner
    operator = actors.system_actor(owner.workspace_id)
    mallory_actor, mallory = actor(instance, owner.workspace_id, "mallory", Role.MEMBER, "codeartsrepo::*")
    user_keys.add(instance, team.member, title="laptop", public_key=fresh_line())
    groups.ensure(instance, owner, name="ops", user_ids=[team.member_user.id, mallory.id])
    group = groups.id_of(instance, owner, "ops")
    grants.give(instance, owner, group_id=group, tag="web", system_user="deploy")
    mine = grants.give(instance, owner, user_id=mallory.id, tag="web", system_user="deploy")
    people.ensure_project(instance, owner, name="cn-north-4", uid=PROJECT)
    repository, another = (
        repositories.create(instance, owner, name=name, project_uid=PROJECT) for name in ("site", "hers")
    )
    two = [("acme/old", repository.id), ("acme/hers", another.id)]
    instance.database.write(
        lambda connection: sealed.insert_rows(
            connection, repository_names, [{"path": path, "repository_id": number} for path, number in two]
        )
    )
    repositories.set_member(instance, owner, repository.id, user_uid=mallory.uid, role="developer", new=True)
    evil = fresh_line()
    credentials.add(instance, owner, team.server.id, label="hers", username="deploy", public_key=evil)
    key = user_keys.add(instance, mallory_actor, title="laptop", public_key=evil)
    token, _ = tokens.create(instance, operator, mallory, name="laptop", scopes=("*",))
    made = access_keys.create(instance, mallory_actor)
    requests.put_rule(instance, owner, "two", tag="web", approvers=2)
    olga = instance.database.read(lambda connection: users.user(connection, owner.user_id or 0))
    assert olga is not None
    tokens.create(instance, owner, olga, name="program", scopes=("*",), secret=OWNERS_TOKEN)
    older = instance.database.read(rows_of)
    (hers,) = [one for one in credentials.find(instance, owner, team.server.id).items if one.label == "hers"]
    credentials.delete(instance, owner, team.server.id, hers.id)
    groups.ensure(instance, owner, name="ops", user_ids=[team.member_user.id])
    grants.take_back(instance, owner, mine.id)
    repositories.remove_member(instance, owner, repository.id, user_uid=mallory.uid)
    strangers = make_team(instance, "umbrella")
    (bearer,) = tokens.of_user(instance, mallory.id, name="laptop")
    tokens.revoke(instance, operator, bearer)
    access_keys.delete(instance, mallory_actor, made.id)
    user_keys.delete(instance, mallory_actor, key.id)
    lost = fresh_line()
    user_keys.add(instance, team.member, title="lost", public_key=lost)
    revocation.revoke_everywhere(instance, owner, parse(lost).fingerprint)
    retired = servers.create(instance, owner, name="retired", address="192.0.2.12").id
    enrolment.enrol(instance, servers.invite(instance, owner, retired), {}, address="192.0.2.12")
    for label in ("one", "two"):
        credentials.add(instance, owner, retired, label=label, username="root", public_key=fresh_line())
    servers.delete(instance, owner, retired)
    made_key = (made.id, made.secret)
    return World(team, mallory, evil, two[0], token, made_key, repository.path, older, strangers.owner)


def rows_of(connection: Connection) -> Rows:
    return {table.name: [dict(row) for row in connection.execute(select(table)).mappings()] for table in TABLES}


def put(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        connection.execute(delete(table).where(alterations.named(table, row)))
    if rows:
        connection.execute(insert(table), rows)


def alter(connection: Connection, world: World, chance: random.Random) -> str:
    """One alteration past Keyrack; what was done, or "" where nothing changed."""
    kind = chance.choice(KINDS)
    now = rows_of(connection)
    if kind in alterations.KINDS:
        what = alterations.KINDS[kind](connection, now, chance)
        return f"{kind} {what}" if stable(now) != stable(rows_of(connection)) else ""
    if kind in MORE:
        what = MORE[kind](connection, world, now, chance)
        return f"{kind} {what}" if stable(now) != stable(rows_of(connection)) else ""
    filled = [table for table in TABLES if now[table.name]]
    table = chance.choice(filled)
    if kind in ("put back", "older table"):
        changed = [one for one in TABLES if world.older[one.name] != now[one.name] and world.older[one.name]]
        table = chance.choice(changed)
    rows = now[table.name]
    if kind == "edit":
        row, other = chance.choice(rows), chance.choice(world.older[table.name] or rows)
        columns = ("content",) if table is tree else (*seals.column_names(table), SEAL)
        column = chance.choice(columns)
        value = other[column] if other[column] != row[column] else changed_value(row[column])
        connection.execute(update(table).where(alterations.named(table, row)).values({column: value}))
    elif kind == "delete":
        connection.execute(delete(table).where(alterations.named(table, chance.choice(rows))))
    elif kind == "insert":
        row = dict(chance.choice(rows))
        first = next(iter(table.primary_key)).name
        row[first] = changed_value(row[first])
        connection.execute(insert(table).values(**row))
    elif kind == "swap" and len(rows) > 1:
        one, other = chance.sample(rows, 2)
        key = {column.name for column in table.primary_key}
        for row, values in ((one, other), (other, one)):
            given = {name: value for name, value in values.items() if name not in key}
            if given:
                connection.execute(update(table).where(alterations.named(table, row)).values(given))
    elif kind == "truncate":
        connection.execute(delete(table))
    elif kind == "put back":
        gone = [row for row in world.older[table.name] if row not in rows]
        put(connection, table, [chance.choice(gone)] if gone else [])
    elif kind == "older table":
        put(connection, table, world.older[table.name])
    elif kind == "older tree":
        # All nodes but the root, and perhaps the rows of one table with them.
        put(connection, tree, [row for row in world.older[tree.name] if row["id"] != tree_nodes.ROOT])
        some = chance.choice([one for one in TABLES if world.older[one.name]])
        put(connection, some, world.older[some.name])
        table = tree
    after = rows_of(connection)
    if stable(now) == stable(after):
        return ""
    return f"{kind} {table.name}"


def move(connection: Connection, world: World, now: Rows, chance: random.Random) -> str:
    """A row becomes one of another workspace, server, user, group or repository."""
    columns = [
        (table, column, next(iter(column.foreign_keys)).column.table.name)
        for table in SEALED_TABLES
        for column in table.c
        if column.foreign_keys and now[table.name]
    ]
    table, column, of = chance.choice([one for one in columns if len(now.get(one[2], ())) > 1])
    row = chance.choice(now[table.name])
    other = chance.choice([one["id"] for one in now[of] if one["id"] != row[column.name]])
    connection.execute(update(table).where(alterations.named(table, row)).values({column.name: other}))
    return f"{table.name}.{column.name}"


def empty(connection: Connection, world: World, now: Rows, chance: random.Random) -> str:
    """A column says nothing any more, such as that access ends."""
    table = chance.choice([table for table in SEALED_TABLES if now[table.name]])
    row = chance.choice(now[table.name])
    column = chance.choice([name for name, value in row.items() if value is not None])
    connection.execute(update(table).where(alterations.named(table, row)).values({column: None}))
    return f"{table.name}.{column}"


def swap_ids(connection: Connection, world: World, now: Rows, chance: random.Random) -> str:
    """Two rows take each other's id, and keep all else."""
    having = [table for table in SEALED_TABLES if "id" in table.c and len(now[table.name]) > 1]
    table = chance.choice(having)
    one, other = (row["id"] for row in chance.sample(now[table.name], 2))
    aside = 10**6 if isinstance(one, int) else "aside"
    for old, new in ((one, aside), (other, one), (aside, other)):
        connection.execute(update(table).where(table.c.id == old).values(id=new))
    return table.name


def double(connection: Connection, world: World, now: Rows, chance: random.Random) -> str:
    """A row of today or of before stands there once more, seal and all, under an id that nobody has."""
    having = [table for table in SEALED_TABLES if "id" in table.c and [*now[table.name], *world.older[table.name]]]
    table = chance.choice(having)
    row = dict(chance.choice([*now[table.name], *world.older[table.name]]))
    row["id"] = chance.randrange(1000, 10**6) if isinstance(row["id"], int) else row["id"] + "x"
    connection.execute(insert(table).values(**row))
    return table.name


def older_tables(connection: Connection, world: World, now: Rows, chance: random.Random) -> str:
    """Several tables at once are as they were; servers are not, which all together are an older revision."""
    changed = [one for one in SEALED_TABLES if world.older[one.name] != now[one.name] and one.name != "servers"]
    some = chance.sample(changed, chance.randint(2, len(changed)))
    for table in sorted(some, key=SEALED_TABLES.index):
        put(connection, table, world.older[table.name])
    return ", ".join(table.name for table in some)


MORE = {"move": move, "empty": empty, "swap ids": swap_ids, "double": double, "older tables": older_tables}


# Longer names first, as one begins like another.
KINDS = sorted(
    {
        "edit",
        "delete",
        "insert",
        "swap",
        "truncate",
        "put back",
        "older table",
        "older tree",
        *MORE,
        *alterations.KINDS,
    },
    key=lambda name: (-len(name), name),
)


def changed_value(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 17
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, bytes):
        return bytes(reversed(value)) + b"x"
    return {"x": 1} if isinstance(value, dict) else None if value is not None else "x"


def stable(rows: Rows) -> Any:
    """Rows by what is sealed of them, in any order."""
    return {
        name: sorted(
            repr([row[column] for column in ("id", "content")])
            if name == tree.name
            else repr([row[column] for column in (*seals.column_names(by_name[name]), SEAL)])
            for row in found
            if name != tree.name or row["content"]  # an empty node says as much as none
        )
        for name, found in rows.items()
    }


by_name = {table.name: table for table in TABLES}


def altered(world: World, chance: random.Random) -> tuple[str, list[str], list[str]]:
    """One alteration, what is named of it, and what mallory gains."""
    outcome: list[tuple[str, list[str], list[str]]] = []

    def command(connection: Connection) -> None:
        try:
            with connection.begin_nested():
                done = alter(connection, world, chance)
        except (DBAPIError, StatementError, TypeError):
            done = ""
        if done:
            inside = replace(world.team.instance, database=DatabaseInTransaction(world.team.instance, connection))  # type: ignore[arg-type]
            gained = world.gained(inside)
            names = [row.name for one in (world.team.owner, world.stranger) for row in damaged(inside, one)]
            outcome.append((done, names, gained))
        raise Undo

    with pytest.raises(Undo):
        world.team.instance.database.write(command)
    return outcome[0] if outcome else ("", [], [])


@pytest.mark.timeout(3600 if os.environ.get("KEYRACK_LONG") else 300)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_alteration_is_found_and_opens_nothing(world: World, part: int) -> None:
    assert world.gained(world.team.instance) == []
    assert damaged(world.team.instance, world.team.owner) == []
    seed = int(os.environ.get("KEYRACK_SEED", random.randrange(10**6)))
    chance = random.Random(f"{seed} {part}")
    done = 0
    kinds: Counter[str] = Counter()
    # What is done is the same on both; once is enough for most of it.
    both = world.team.instance.database.dialect == "sqlite" or os.environ.get("KEYRACK_LONG")
    wanted = ALTERATIONS if both else ALTERATIONS // 5
    while done < wanted:
        what, names, gained = altered(world, chance)
        if not what:
            continue
        kinds[next(kind for kind in KINDS if what.startswith(kind))] += 1
        assert gained == [], f"{what} opens {gained} (KEYRACK_SEED={seed}, alteration {done})"
        assert names, f"{what} is not found (KEYRACK_SEED={seed}, alteration {done})"
        done += 1
    assert damaged(world.team.instance, world.team.owner) == [], "and nothing of it stays"
    print(f"{done} alterations found and named, 0 open anything (KEYRACK_SEED={seed}): {dict(kinds)}")


def test_a_row_that_is_put_right_counts_again_at_once(world: World) -> None:
    """Also for a service that began while others were altered, and has never seen its place as it should be."""
    instance = world.team.instance
    held = by_name["group_members"]
    older, now = (rows[held.name] for rows in (world.older, instance.database.read(rows_of)))
    gone = [row for row in older if row not in now]
    assert gone

    def put_back(connection: Connection) -> None:
        put(connection, held, gone)

    def put_right(connection: Connection) -> None:
        for row in gone:
            connection.execute(delete(held).where(alterations.named(held, row)))

    instance.database.write(put_back)
    later = app.open_instance(world.team.instance.settings)
    try:
        assert damaged(later, world.team.owner)
        later.database.write(put_right)
        assert damaged(later, world.team.owner) == []
    finally:
        later.database.close()


def test_deleted_rows_that_are_put_back_count_for_nothing_and_are_named(world: World) -> None:
    """Each table as it was while mallory had a way in, one after another, and all of them together but the root."""
    instance = world.team.instance

    def put_back(connection: Connection) -> None:
        for table in SEALED_TABLES:
            # A server's own row with all of its rows is an older revision, which its host does not take.
            if table.name != "servers":
                put(connection, table, world.older[table.name])
        put(connection, tree, [row for row in world.older[tree.name] if row["id"] != tree_nodes.ROOT])

    instance.database.write(put_back)
    assert world.gained(instance) == []
    kinds = {row.kind for row in damaged(instance, world.team.owner)}
    assert {"grant", "group-member", "repository-member", "token", "access-key", "user-key", "count"} <= kinds
    assert [
        event.summary for event in events.find(instance, world.team.owner, limit=500).items if event.level == "alarm"
    ]


def test_an_operator_has_everything_counted_anew(world: World) -> None:
    instance, owner = world.team.instance, world.team.owner
    instance.database.write(lambda connection: connection.execute(delete(tree)))
    operator = actors.system_actor(owner.workspace_id)
    assert tokens_hold(world) is False
    assert {row.kind for row in damaged(instance, owner)} >= {"user", "token", "count"}
    damaged_rows.reseal(instance, operator, ["all"])
    assert damaged(instance, owner) == []
    assert tokens_hold(world) is True


def tokens_hold(world: World) -> bool:
    """Whether the owner's token, made before, is believed."""
    instance = world.team.instance
    with contextlib.suppress(Refusal):
        tokens.authenticate(instance, OWNERS_TOKEN, address="203.0.113.1", channel="test")
        return True
    return False


def test_putting_back_all_tables_raises_an_alarm(world: World) -> None:
    """With the root, as one older state: a restore does the same, so it counts, and hosts know their documents."""
    instance = world.team.instance
    assert tokens_hold(world)

    def put_back(connection: Connection) -> None:
        for table in TABLES:
            if table.name != "servers":
                put(connection, table, world.older[table.name])

    instance.database.write(put_back)
    assert tokens_hold(world)
    summaries = [event.summary for event in events.find(instance, world.team.owner, limit=50).items]
    assert any("to an older state, all of it" in summary for summary in summaries)


def test_rows_deleted_in_the_database_raise_an_alarm_without_anybody_asking(world: World) -> None:
    """Of each table one row, of a place that several share one of them; the rows that a server counts as well."""
    instance = world.team.instance
    check_all_rows(instance)
    assert alarms(world.team) == []
    now = instance.database.read(rows_of)
    found: dict[str, list[str]] = {}
    for table in TABLES:
        if not now[table.name]:
            continue

        def command(connection: Connection, table: Table = table) -> None:
            # The last one by its key: of the tree, a node that counts something, as no other is missed.
            last = max(now[table.name], key=lambda row: [row[column.name] for column in table.primary_key])
            connection.execute(delete(table).where(alterations.named(table, last)))
            inside = replace(instance, database=DatabaseInTransaction(instance, connection))  # type: ignore[arg-type]
            check_all_rows(inside)
            found[table.name] = [row.name for row in inside.database.seals.take_unreported()]
            raise Undo

        with pytest.raises(Undo):
            instance.database.write(command)
    assert {"grants", "revoked_keys", "group_members", "servers", "server_tags", "access_tree"} <= set(found)
    assert {"deleted_servers", "deleted_server_keys", "repository_names"} <= set(found)
    assert [name for name, names in found.items() if not names] == []
    revoked, grants_table = by_name["revoked_keys"], by_name["grants"]
    instance.database.write(lambda connection: connection.execute(delete(revoked)))
    instance.database.write(lambda connection: connection.execute(delete(grants_table)))
    check_all_rows(instance)
    raised = alarms(world.team)
    assert [one for one in raised if "`" in next_steps.sentence(one)] == []
    assert {next_steps.commands(one) for one in raised if "was deleted" in one} == {("keyrack hosts damaged",)}
    words = " ".join(raised)
    assert "key revoked everywhere 1,*, or one that is counted with it, was deleted in the database" in words
    assert "The grant 1, or one" in words


SAMPLE = 20 // PARTS
NO_TEXT = b"no \xff text"  # entered as text, and no UTF-8
STRANGE: tuple[Any, ...] = (None, "x", "", b"\x00\xff", NO_TEXT, 1.5, -1, 2**62, "9" * 400, "{", "[]", '{"a":')


@pytest.mark.timeout(3600 if os.environ.get("KEYRACK_LONG") else 300)
@pytest.mark.parametrize("team_template", ["sqlite"], indirect=True)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_value_of_any_wrong_type_in_a_column_is_found_and_opens_nothing(world: World, part: int) -> None:
    """SQLite keeps any value in any column: one that no column of ours can hold costs that row alone."""
    instance = world.team.instance
    now = instance.database.read(rows_of)
    every = [
        (table, row, column, value)
        for table in SEALED_TABLES
        for row in now[table.name][-1:]
        for column in (*seals.column_names(table), SEAL)
        for value in STRANGE
        if value != row[column]
    ][part::PARTS]
    seed = int(os.environ.get("KEYRACK_SEED", random.randrange(10**6)))
    chosen = every if os.environ.get("KEYRACK_LONG") else random.Random(seed).sample(every, SAMPLE)
    wrong = []
    for table, row, column, value in chosen:
        words = f"{table.name}.{column} = {value!r:.20}"
        found: list[tuple[list[str], list[str]]] = []

        def command(
            connection: Connection,
            table: Table = table,
            row: dict[str, Any] = row,
            column: str = column,
            value: Any = value,
            found: list[tuple[list[str], list[str]]] = found,
        ) -> None:
            key = {name.name: row[name.name] for name in table.primary_key}
            at = " AND ".join(f"{name} = ?" for name in key)
            given = "CAST(? AS TEXT)" if value is NO_TEXT else "?"
            # What stands there already is no alteration: an empty list is kept as the text "[]".
            set_it = f"UPDATE {table.name} SET {column} = {given} WHERE {at} AND {column} IS NOT {given}"
            try:
                with connection.begin_nested():
                    changed = connection.exec_driver_sql(set_it, (value, *key.values(), value)).rowcount
            except DBAPIError:
                changed = 0
            if changed:
                inside = replace(instance, database=DatabaseInTransaction(instance, connection))  # type: ignore[arg-type]
                names = [one.name for whose in (world.team.owner, world.stranger) for one in damaged(inside, whose)]
                found.append((world.gained(inside), names))
            raise Undo

        try:
            instance.database.write(command)
        except Undo:
            pass
        except Exception as error:
            wrong.append(f"{words}: {error!r:.150}")
            continue
        for gained, names in found:
            if gained or not names:
                wrong.append(f"{words}: opens {gained}, named {names}")
    assert not wrong, f"KEYRACK_SEED={seed}: " + "; ".join(wrong)
