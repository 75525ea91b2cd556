"""A change that somebody else's trigger or rule keeps from happening is an error, and never acknowledged."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, event, insert, select

from keyrack.core.hosts import sessions as host_sessions
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, everywhere, revocation
from keyrack.core.people import groups
from keyrack.ssh.public_key import parse
from keyrack.store.engine.connect import DatabaseAltered
from keyrack.store.sealing import sealed
from keyrack.store.tables import server_tags, sessions, users
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.test_everywhere import WEB, more_servers

NOTHING = "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"


def run(instance: Instance, *statements: str) -> None:
    def command(connection: Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    instance.database.write(command)


def swallow(instance: Instance, action: str, table: str) -> None:
    """Have a trigger keep rows from being written or deleted, as if nothing was wrong."""
    if instance.database.dialect == "sqlite":
        run(instance, f"CREATE TRIGGER evil BEFORE {action} ON {table} BEGIN SELECT RAISE(IGNORE); END")
    else:
        each = "FOR EACH ROW EXECUTE FUNCTION nothing()"
        run(instance, NOTHING, f"CREATE TRIGGER evil BEFORE {action} ON {table} {each}")


def labels(team: Team) -> list[str]:
    return [one.label for one in credentials.find(team.instance, team.owner, team.server.id).items]


def add(team: Team, label: str) -> None:
    line = fresh_line()
    credentials.add(team.instance, team.owner, team.server.id, label=label, username="deploy", public_key=line)


@pytest.mark.parametrize(("action", "table"), [("INSERT", "events"), ("INSERT", "credentials"), ("UPDATE", "servers")])
def test_a_write_that_did_not_happen_is_not_acknowledged(team: Team, action: str, table: str) -> None:
    swallow(team.instance, action, table)
    with pytest.raises(DatabaseAltered, match="did not make it"):
        add(team, "laptop")
    assert labels(team) == []


def test_a_delete_that_did_not_happen_is_not_acknowledged(team: Team) -> None:
    add(team, "laptop")
    (hers,) = credentials.find(team.instance, team.owner, team.server.id).items
    swallow(team.instance, "DELETE", "credentials")
    with pytest.raises(DatabaseAltered, match="did not make it"):
        credentials.delete(team.instance, team.owner, team.server.id, hers.id)
    assert labels(team) == ["laptop"]


def test_a_deletion_of_several_rows_that_a_trigger_prevents_is_an_error(team: Team) -> None:
    """As membership of a group, or all sessions of somebody who signs out everywhere."""
    group = {"name": "ops", "user_ids": [team.member_user.id]}
    groups.ensure(team.instance, team.owner, **group)  # type: ignore[arg-type]
    swallow(team.instance, "DELETE", "group_members")
    with pytest.raises(DatabaseAltered, match="did not make it"):
        groups.ensure(team.instance, team.owner, name="ops", user_ids=[])
    with pytest.raises(DatabaseAltered, match="did not make it"):
        team.instance.database.write(lambda connection: sealed.remove(connection, users, users.c.name == "alice"))


def test_rows_entered_while_others_are_deleted_are_deleted_too(team: Team) -> None:
    instance = team.instance
    if instance.database.dialect == "sqlite":
        pytest.skip("on SQLite nobody else writes meanwhile")
    of_team = server_tags.c.server_id == team.server.id
    entered: list[str] = []

    def enter(*_: object) -> None:
        if not entered:
            entered.append("late")
            late = {"server_id": team.server.id, "tag": "late"}
            instance.database.write(lambda other: sealed.insert_rows(other, server_tags, [late]))

    def command(connection: Connection) -> None:
        event.listen(connection, "after_cursor_execute", enter)  # between the deletion and the check
        sealed.remove(connection, server_tags, of_team)

    instance.database.write(command)
    assert entered
    assert not instance.database.read(lambda connection: connection.execute(select(server_tags).where(of_team)).all())


def test_a_login_whose_end_was_not_stored_is_not_reported_as_ending(team: Team) -> None:
    at = team.instance.now()

    def command(connection: Connection) -> int:
        row = {
            "server_id": team.server.id,
            "host_session": "7",
            "username": "deploy",
            "address": "203.0.113.1",
            "fingerprint": "",
            "started_at": at,
            "ending": False,
        }
        return int(connection.execute(insert(sessions).values(**row).returning(sessions.c.id)).scalar_one())

    session_id = team.instance.database.write(command)
    swallow(team.instance, "UPDATE", "sessions")
    with pytest.raises(DatabaseAltered, match="did not make it"):
        host_sessions.end(team.instance, team.owner, team.server.id, session_id)


def swallow_one_of_many(team: Team, action: str, row: str, server_id: int) -> None:
    """Have a trigger keep what is done to credentials of one server, while all the others are done."""
    if team.instance.database.dialect == "sqlite":
        when = f"BEFORE {action} ON credentials WHEN {row}.server_id = {server_id}"
        run(team.instance, f"CREATE TRIGGER evil {when} BEGIN SELECT RAISE(IGNORE); END")
        return
    when = f"BEFORE {action} ON credentials FOR EACH ROW WHEN ({row}.server_id = {server_id})"
    run(team.instance, NOTHING, f"CREATE TRIGGER evil {when} EXECUTE FUNCTION nothing()")


@pytest.mark.parametrize(("action", "row"), [("INSERT", "NEW"), ("UPDATE", "OLD"), ("DELETE", "OLD")])
def test_one_missing_write_of_many_refuses_all(team: Team, action: str, row: str) -> None:
    first, *_, last = [team.server.id, *more_servers(team, 3)]
    line = fresh_line()
    if action != "INSERT":
        everywhere.add(team.instance, team.owner, WEB, label="bot", username="deploy", public_key=line)
    swallow_one_of_many(team, action, row, last)
    with pytest.raises(DatabaseAltered, match="did not make it"):
        if action == "INSERT":
            everywhere.add(team.instance, team.owner, WEB, label="bot", username="deploy", public_key=line)
        elif action == "UPDATE":
            everywhere.replace(
                team.instance, team.owner, WEB, fingerprint=parse(line).fingerprint, public_key=fresh_line()
            )
        else:
            revocation.revoke_everywhere(team.instance, team.owner, parse(line).fingerprint)
    here = [one.label for one in credentials.find(team.instance, team.owner, first).items]
    assert here == ([] if action == "INSERT" else ["bot"])


def test_a_rule_that_swallows_a_write_has_it_refused(team: Team) -> None:
    if team.instance.database.dialect == "sqlite":
        pytest.skip("SQLite knows no rules")
    run(team.instance, "CREATE RULE evil AS ON INSERT TO events DO INSTEAD NOTHING")
    with pytest.raises(DatabaseAltered, match="did not make it"):
        add(team, "laptop")
    assert labels(team) == []


def test_changes_are_taken_again_when_the_trigger_is_gone(team: Team) -> None:
    swallow(team.instance, "UPDATE", "servers")
    with pytest.raises(DatabaseAltered):
        add(team, "laptop")
    run(team.instance, "DROP TRIGGER evil" + ("" if team.instance.database.dialect == "sqlite" else " ON servers"))
    add(team, "laptop")
    assert labels(team) == ["laptop"]


def test_reused_ids_are_reported_and_keep_nothing(team: Team) -> None:
    """As where sequences were set back, or a copy was made without them."""
    instance = team.instance
    add(team, "one")
    if instance.database.dialect == "sqlite":
        run(instance, "UPDATE sqlite_sequence SET seq = 0")
    else:
        run(instance, "ALTER SEQUENCE credentials_id_seq RESTART", "ALTER SEQUENCE events_id_seq RESTART")
    with pytest.raises(DatabaseAltered, match=r"ids out that are in use already .*\.id|ids out .*pk_"):
        add(team, "two")
    assert labels(team) == ["one"]
