"""A trigger, a rule or a view that somebody put on our tables is an alarm, and what an operator may do is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection

from keyrack.core.audit import events, verify_log
from keyrack.core.instance import Instance
from keyrack.core.people.actors import system_actor
from keyrack.core.schema_check import SchemaCheck, in_the_way
from keyrack.store.engine import catalogue
from tests.core.conftest import Team
from tests.core.test_lost_writes import add, labels, run, swallow
from tests.core.undone_transaction import Undo


def alarms_of(team: Team) -> list[str]:
    """As the service does that was just started; all alarms."""
    SchemaCheck().go_on(team.instance)
    found = events.find(team.instance, team.owner, limit=100).items
    return [one.summary for one in found if one.level == "alarm"]


def unlinked(instance: Instance) -> tuple[str, ...]:
    return instance.database.read(catalogue.unlinked)


def test_a_trigger_is_an_alarm_and_has_verifying_fail(team: Team) -> None:
    assert alarms_of(team) == []
    swallow(team.instance, "DELETE", "tokens")
    (summary,) = alarms_of(team)
    assert "trigger evil on tokens" in summary
    assert alarms_of(team) == [summary]  # once an hour, whichever process checks
    assert "trigger evil on tokens" in verify_log.verify(team.instance, system_actor()).problem
    add(team, "laptop")  # nothing is stopped for it
    assert labels(team) == ["laptop"]


def test_a_trigger_that_an_operator_allows_raises_no_alarm(team: Team) -> None:
    swallow(team.instance, "DELETE", "tokens")
    settings = replace(team.instance.settings, known_triggers="mine, evil")
    known = replace(team.instance, settings=settings)
    assert in_the_way(known) == ()
    assert verify_log.verify(known, system_actor()).problem == ""


NAMED = {
    "view tokens on tokens": "ALTER TABLE tokens RENAME TO other; CREATE VIEW tokens AS SELECT * FROM other",
    "rule evil on events": "CREATE RULE evil AS ON INSERT TO events DO INSTEAD NOTHING",
    "inheriting table evil on credentials": "CREATE TABLE evil () INHERITS (credentials)",
    "a switch-off of foreign keys on grants": "ALTER TABLE grants DISABLE TRIGGER ALL",
    "row security that hides rows from us on tokens": (
        "CREATE ROLE evil; ALTER TABLE tokens ENABLE ROW LEVEL SECURITY; SET LOCAL ROLE evil"
    ),
}


@pytest.mark.parametrize("what", NAMED)
def test_a_trigger_rule_or_view_that_may_change_writes_is_named(team: Team, what: str) -> None:
    if team.instance.database.dialect == "sqlite" and not what.startswith("view"):
        pytest.skip("SQLite knows no such thing")

    def command(connection: Connection) -> None:
        for statement in NAMED[what].split("; "):
            connection.exec_driver_sql(statement)
        assert [str(one) for one in catalogue.foreign(connection)] == [what]
        raise Undo

    with pytest.raises(Undo):
        team.instance.database.write(command)


ANEW = (
    *("CREATE TABLE fresh AS SELECT * FROM key_owners", "DROP TABLE key_owners"),
    "ALTER TABLE fresh RENAME TO key_owners",
)
MISSING = {
    "unique (fingerprint) on key_owners is missing": "DROP CONSTRAINT pk_key_owners",
    "foreign key (user_key_id) on key_owners is missing": "DROP COLUMN user_key_id, ADD COLUMN user_key_id integer",
}


@pytest.mark.parametrize("what", MISSING)
def test_a_key_of_a_table_that_is_missing_is_named(team: Team, what: str) -> None:
    assert unlinked(team.instance) == ()
    is_sqlite = team.instance.database.dialect == "sqlite"
    run(team.instance, *(ANEW if is_sqlite else (f"ALTER TABLE key_owners {MISSING[what]}",)))
    assert what in unlinked(team.instance)
    assert any(what in one for one in alarms_of(team))


def test_tables_views_and_indexes_that_an_operator_may_add_raise_no_alarm(team: Team) -> None:
    run(
        team.instance,
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, said TEXT)",
        "CREATE VIEW shown AS SELECT name FROM tokens",
        "CREATE INDEX mine ON tokens (name)",
    )
    if team.instance.database.dialect == "sqlite":
        # As SpatiaLite and others make them, for programs that load a module.
        elsewhere = "('table', 'shapes', 'shapes', 0, 'CREATE VIRTUAL TABLE shapes USING not_loaded_here(x)')"
        run(team.instance, "PRAGMA writable_schema = ON", f"INSERT INTO sqlite_master VALUES {elsewhere}")
        run(team.instance, "PRAGMA writable_schema = RESET")
    else:
        run(
            team.instance,
            "CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            "CREATE TRIGGER theirs BEFORE INSERT ON notes FOR EACH ROW EXECUTE FUNCTION nothing()",
            "ALTER TABLE tokens ENABLE ROW LEVEL SECURITY",  # which does not hold for a table's owner
            "CREATE PUBLICATION ours FOR ALL TABLES",
        )
    assert alarms_of(team) == []
    assert verify_log.verify(team.instance, system_actor()).problem == ""
    team.instance.database.check()
