"""A server's rows are counted in its own: one deleted or put back as it was, past Keyrack, gets nothing signed."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Table, delete, insert, select, update
from sqlalchemy.exc import IntegrityError, StatementError

from keyrack.core.audit import events
from keyrack.core.hosts import documents, enrolment, servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, damaged_rows, grants, user_keys
from keyrack.core.people import actors, users
from keyrack.errors import Kind, Refusal
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.sealing import seals, sums
from keyrack.store.sealing.seals import OF_SERVER, seals_of
from tests.core.all_damaged_rows import damaged
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line


@pytest.fixture(autouse=True)
def every_sum_fits(instance: Instance) -> Iterator[None]:
    """Before anybody alters a row: whatever was written through Keyrack is counted."""
    yield
    if getattr(every_sum_fits, "altered", False):
        every_sum_fits.altered = False  # type: ignore[attr-defined]
        return
    assert instance.database.read(unfit) == []


def unfit(connection: Connection) -> list[int]:
    ids = connection.execute(select(tables.servers.c.id)).scalars().all()
    return [number for number in ids if not sums.fits(connection, number)]


def alter(team: Team, statement: Any) -> None:
    """Past Keyrack."""
    every_sum_fits.altered = True  # type: ignore[attr-defined]
    team.instance.database.write(lambda connection: connection.execute(statement))


def rows(team: Team, table: Table) -> list[dict[str, Any]]:
    found = team.instance.database.read(lambda connection: connection.execute(select(table)).mappings().all())
    return [dict(row) for row in found]


def document_of(team: Team) -> Any:
    """The server's document, None where nothing is signed."""
    try:
        signed = documents.signed(team.instance, team.server.id)
    except Refusal as refusal:
        if refusal.kind is Kind.UNAVAILABLE:
            return None
        raise
    assert signed is not None
    return json.loads(signed.text)


def alarms(team: Team) -> list[str]:
    found = events.find(team.instance, team.owner, limit=1000).items
    return [event.summary for event in found if event.level == "alarm"]


def add(team: Team, label: str, line: str) -> int:
    added = credentials.add(team.instance, team.owner, team.server.id, label=label, username="deploy", public_key=line)
    return added.id


def test_everything_that_is_written_is_counted(team: Team) -> None:
    instance, owner, number = team.instance, team.owner, team.server.id
    first = add(team, "one", fresh_line())
    add(team, "two", fresh_line())
    credentials.delete(instance, owner, number, first)
    given = grants.give(instance, owner, user_id=team.member_user.id, server_id=number, system_user="deploy")
    user_keys.add(instance, team.member, title="laptop", public_key=fresh_line())
    shop = system_users.create(instance, owner, number, username="shop", password="a long password")
    credentials.add(instance, owner, number, label="three", username="shop", public_key=fresh_line())
    system_users.delete(instance, owner, number, shop.id)
    servers.retag(instance, owner, number, ("web", "eu"))
    enrolment.enrol(instance, servers.invite(instance, owner, number), {}, address="203.0.113.1")
    assert instance.database.read(unfit) == []
    grants.take_back(instance, owner, given.id)
    grants.give(instance, owner, user_id=team.member_user.id, server_id=number, system_user="deploy")
    users.delete_user(instance, owner, team.member_user.id)
    assert instance.database.read(unfit) == []
    assert document_of(team) is not None


@pytest.mark.parametrize("what", ["revocation", "credential", "grant", "tag"])
def test_a_deleted_row_is_noticed(team: Team, what: str) -> None:
    line = fresh_line()
    credentials.delete(team.instance, team.owner, team.server.id, add(team, "gone", line))
    add(team, "stays", fresh_line())
    grants.give(team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    assert document_of(team)["revoked"] == [parse(line).canonical]
    table = {
        "revocation": tables.revocations,
        "credential": tables.credentials,
        "grant": tables.grants,
        "tag": tables.server_tags,
    }[what]
    alter(team, delete(table))
    assert document_of(team) is None, "its host keeps to its last document, and so goes on refusing"
    assert len([words for words in alarms(team) if "deleted or put back" in words]) == 1
    assert [row.name for row in damaged(team.instance, team.owner)] == [f"server:{team.server.id}"]
    # What is done meanwhile does not make it right.
    add(team, "later", fresh_line())
    assert document_of(team) is None
    damaged_rows.reseal(team.instance, actors.system_actor(team.owner.workspace_id), [f"server:{team.server.id}"])
    assert document_of(team) is not None
    assert team.instance.database.read(unfit) == []


@pytest.mark.parametrize("what", ["credential", "grant"])
def test_a_removed_row_that_is_put_back_opens_nothing(team: Team, what: str) -> None:
    user_keys.add(team.instance, team.member, title="laptop", public_key=fresh_line())
    added = add(team, "laptop", fresh_line())
    given = grants.give(
        team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy"
    )
    table = tables.credentials if what == "credential" else tables.grants
    (old,) = rows(team, table)
    if what == "credential":
        credentials.delete(team.instance, team.owner, team.server.id, added)
    else:
        grants.take_back(team.instance, team.owner, given.id)
    alter(team, insert(table).values(**old))
    assert document_of(team) is None
    assert any("deleted or put back" in words for words in alarms(team))


def test_a_used_enrolment_token_that_is_put_back_enrols_no_host(team: Team) -> None:
    invited = servers.invite(team.instance, team.owner, team.server.id)
    (old,) = rows(team, tables.enrolments)
    enrolment.enrol(team.instance, invited, {}, address="203.0.113.1")
    alter(team, update(tables.enrolments).values(used_at=None, seal=old["seal"]))
    with pytest.raises(Refusal):
        enrolment.enrol(team.instance, invited, {}, address="203.0.113.1")


def test_a_row_entered_by_others_is_left_out_and_may_be_removed(team: Team) -> None:
    add(team, "mine", fresh_line())
    alter(team, insert(tables.server_tags).values(server_id=team.server.id, tag="db", seal=b"m" * 32))
    assert document_of(team) is not None, "it does not hold, and everything else goes on"
    damaged_rows.remove(team.instance, team.owner, f"tag:{team.server.id},db")
    assert document_of(team) is not None
    assert damaged(team.instance, team.owner) == []
    evil = parse(fresh_line())
    alter(team, update(tables.credentials).values(public_key=evil.canonical, fingerprint=evil.fingerprint))
    assert document_of(team)["users"] == {}
    (row,) = damaged(team.instance, team.owner)
    damaged_rows.remove(team.instance, team.owner, row.name)
    assert document_of(team)["revoked"] == [evil.canonical]
    assert team.instance.database.read(unfit) == []


def test_no_alteration_of_a_servers_rows_opens_anything(team: Team) -> None:
    chance = random.Random(7)
    of_server = (tables.credentials, tables.revocations, tables.server_tags, tables.grants, tables.system_users)
    user_keys.add(team.instance, team.member, title="laptop", public_key=fresh_line())
    older: list[tuple[Table, dict[str, Any]]] = []
    for number in range(4):
        added = add(team, f"key {number}", fresh_line())
        older += [(table, row) for table in of_server for row in rows(team, table)]
        if number % 2:
            credentials.delete(team.instance, team.owner, team.server.id, added)
    grants.give(team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    before = document_of(team)
    lines = {(name, line["key"]) for name, entries in before["users"].items() for line in entries}
    now = {table.name: rows(team, table) for table in of_server}

    for round_ in range(60):
        table, old = chance.choice(older)
        named = [column == old[column.name] for column in table.primary_key]
        column = chance.choice([column for column in table.c if not column.primary_key] or list(table.c))
        kind = chance.choice(("edit", "delete", "put back", "swap"))

        def harm(
            connection: Connection, table: Table = table, old: Any = old, named: Any = named,
            column: Any = column, kind: str = kind,
        ) -> None:  # fmt: skip
            if kind == "delete":
                connection.execute(delete(table).where(*named))
            elif kind == "put back":
                connection.execute(delete(table).where(*named))
                connection.execute(insert(table).values(**old))
            elif kind == "edit":
                others = [row[column.name] for row in now[table.name]]
                connection.execute(update(table).where(*named).values({column: chance.choice(others or [None])}))
            elif kind == "swap" and len(now[table.name]) > 1:
                one, two = chance.sample(now[table.name], 2)
                this = [column == one[column.name] for column in table.primary_key]
                connection.execute(update(table).where(*this).values(seal=two["seal"]))

        every_sum_fits.altered = True  # type: ignore[attr-defined]
        with contextlib.suppress(IntegrityError, StatementError):  # what the database itself does not take
            team.instance.database.write(harm)
        document = document_of(team)
        if document is not None:
            found = {(name, line["key"]) for name, entries in document["users"].items() for line in entries}
            assert found <= lines, (round_, kind, table.name)
            changed = {table.name: rows(team, table) for table in of_server} != now
            named_now = [row.name for row in damaged(team.instance, team.owner)]
            assert not changed or named_now or only_volatile(now, team, of_server), (round_, kind, table.name)
            if not named_now:
                assert set(before["revoked"]) <= set(document["revoked"])

        def mend(connection: Connection) -> None:
            for table in reversed(of_server):
                connection.execute(delete(table))
            for table in (
                tables.system_users,
                tables.server_tags,
                tables.revocations,
                tables.grants,
                tables.credentials,
            ):
                for row in now[table.name]:
                    connection.execute(insert(table).values(**row))

        team.instance.database.write(mend)


def only_volatile(now: Any, team: Team, of_server: tuple[Table, ...]) -> bool:
    """Whether all that differs decides nothing."""
    for table in of_server:
        names = [*seals.column_names(table), "seal"]
        before = sorted(repr([row[name] for name in names]) for row in now[table.name])
        after = sorted(repr([row[name] for name in names]) for row in rows(team, table))
        if before != after:
            return False
    return True


def server_row(team: Team) -> dict[str, Any]:
    return next(row for row in rows(team, tables.servers) if row["id"] == team.server.id)


def test_the_database_does_not_show_what_a_row_adds_to_the_sum(team: Team) -> None:
    """Whoever knew that of many rows could find others that add the same, and put those in their place."""
    states = [server_row(team)["rows_sum"]]
    for label in ("one", "two"):
        key = add(team, label, fresh_line())
        states.append(server_row(team)["rows_sum"])
        credentials.delete(team.instance, team.owner, team.server.id, key)
    (tag,) = rows(team, tables.server_tags)
    servers.retag(team.instance, team.owner, team.server.id, ())
    servers.retag(team.instance, team.owner, team.server.id, (tag["tag"],))
    states.append(server_row(team)["rows_sum"])
    assert len(set(states)) == len(states)
    known = {int.from_bytes(row["seal"], "big") for name in ("credentials", "server_tags", "revocations")
             for row in rows(team, tables.metadata.tables[name])}  # fmt: skip
    shown = [int.from_bytes(state[-32:], "big") for state in states]
    assert not {(a - b) % 2**256 for a in shown for b in shown} & known


def as_before_sums_were_hidden(connection: Connection, server_id: int, *, missing: int = 0) -> None:
    """The sum as older versions kept it."""
    total = missing
    for name in OF_SERVER:
        table = tables.metadata.tables[name]
        found = connection.execute(select(table.c.seal).where(table.c.server_id == server_id)).scalars()
        total += sum(int.from_bytes(seal, "big") for seal in found)
    row = dict(connection.execute(select(tables.servers).where(tables.servers.c.id == server_id)).mappings().one())
    row["rows_sum"] = (total % 2**256).to_bytes(32, "big")
    values = {"rows_sum": row["rows_sum"], "seal": seals_of(connection).of(tables.servers, row)}
    connection.execute(update(tables.servers).where(tables.servers.c.id == server_id).values(values))


def test_older_sums_are_hidden_once_where_they_fit(team: Team) -> None:
    add(team, "one", fresh_line())
    team.instance.database.write(lambda connection: as_before_sums_were_hidden(connection, team.server.id))
    assert team.instance.database.write(sums.hide_older) == 1
    assert len(server_row(team)["rows_sum"]) == 48
    assert document_of(team) is not None
    add(team, "two", fresh_line())
    assert document_of(team) is not None


def test_an_older_sum_that_does_not_fit_is_not_made_to(team: Team) -> None:
    add(team, "one", fresh_line())
    every_sum_fits.altered = True  # type: ignore[attr-defined]
    team.instance.database.write(lambda connection: as_before_sums_were_hidden(connection, team.server.id, missing=5))
    assert team.instance.database.write(sums.hide_older) == 0
    add(team, "two", fresh_line())
    assert document_of(team) is None
