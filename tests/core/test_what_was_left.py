"""What is remembered of what is gone, deleted servers and former paths of repositories, is sealed and counted like all
that decides; on both databases.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, insert, select, update

from keyrack import app
from keyrack.core.git import repositories
from keyrack.core.hosts import deleted_servers, documents, enrolment, reports, servers
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, damaged_rows
from keyrack.core.people import actors
from keyrack.core.people import users as people
from keyrack.errors import Refusal
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.git import git_access
from keyrack.store.sealing import access_tree, sealed, sealed_tables
from tests.core.all_damaged_rows import damaged
from tests.core.background_check import alarms, check_all_rows
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line
from tests.core.set_back import to_before

PROJECT = "aa2d97d7e62c4b7da3ffdfc11551f878"
OLD = "acme/old"


def deleted_host(team: Team, lines: int = 2) -> tuple[str, list[str]]:
    """The team's server has a host with some keys, and is deleted: the host's secret, and the keys."""
    token = servers.invite(team.instance, team.owner, team.server.id)
    secret = enrolment.enrol(team.instance, token, {}, address="192.0.2.1").secret
    keys = [fresh_line() for _ in range(lines)]
    for number, line in enumerate(keys):
        credentials.add(
            team.instance, team.owner, team.server.id, label=str(number), username="deploy", public_key=line
        )
    servers.delete(team.instance, team.owner, team.server.id)
    return secret, [parse(line).canonical for line in keys]


def refused_there(instance: Instance, team: Team) -> list[str] | None:
    """The keys that the deleted server's last document refuses; None where there is no document."""
    try:
        signed = documents.signed(instance, team.server.id)
    except Refusal:
        return None
    assert signed is not None
    return sorted(json.loads(signed.text)["revoked"])


def past_keyrack(instance: Instance, statement: Any) -> None:
    """Run a statement as somebody who may write to the database."""
    instance.database.write(lambda connection: connection.execute(statement))


KEYS, GONE = tables.deleted_server_keys, tables.deleted_servers
ONE_KEY = select(func.min(KEYS.alias().c.fingerprint)).scalar_subquery()
CHANGES: dict[str, Callable[[], Any]] = {
    "a key deleted": lambda: delete(KEYS).where(KEYS.c.fingerprint == ONE_KEY),
    "all keys deleted": lambda: delete(KEYS),
    "a key changed": lambda: update(KEYS).values(public_key="x"),
    "the revision": lambda: update(GONE).values(revision=GONE.c.revision + 5),
    "the host": lambda: update(GONE).values(host="h_another"),
    "obeyed already": lambda: update(GONE).values(acknowledged_at=GONE.c.deleted_at),
    "the agent's secret": lambda: update(GONE).values(agent_secret_hash=b"m" * 32),
    "the name": lambda: update(GONE).values(name="other"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_deleted_servers_row_changed_in_the_database_is_named_and_its_host_is_sent_nothing(
    team: Team, what: str
) -> None:
    _, keys = deleted_host(team)
    assert refused_there(team.instance, team) == sorted(keys)
    assert damaged(team.instance, team.owner) == []
    past_keyrack(team.instance, CHANGES[what]())
    assert refused_there(team.instance, team) is None
    check_all_rows(team.instance)
    assert {row.kind for row in damaged(team.instance, team.owner)} <= {"deleted-server", "deleted-server-key"}
    assert damaged(team.instance, team.owner)
    assert [words for words in alarms(team) if "deleted server" in words]
    # The operator, who knows better, lets it count as it stands.
    damaged_rows.reseal(team.instance, actors.system_actor(team.owner.workspace_id), ["all"])
    assert refused_there(team.instance, team) is not None
    assert damaged(team.instance, team.owner) == []


def test_a_deleted_server_that_is_deleted_by_others_is_an_alarm(team: Team) -> None:
    """Its host, which was off, is known no more: people hear of that, without anybody asking."""
    secret, _ = deleted_host(team)
    check_all_rows(team.instance)
    assert not [words for words in alarms(team) if "deleted server" in words]
    past_keyrack(team.instance, delete(GONE))
    (answer,) = enrolment.authenticate_together(team.instance, [(secret, "192.0.2.1")])
    assert isinstance(answer, Refusal)
    check_all_rows(team.instance)
    alarm_words = " ".join(alarms(team))
    assert (
        f"The deleted server {team.server.id}, or one that is counted with it, was deleted in the database"
        in alarm_words
    )
    assert f"deleted-server:{team.server.id}" in [row.name for row in damaged(team.instance, team.owner)]


def test_a_receipt_of_a_deleted_servers_host_keeps_its_seal(team: Team) -> None:
    secret, _ = deleted_host(team)
    (gone,) = deleted_servers.find(team.instance, team.owner).items
    (host,) = enrolment.authenticate_together(team.instance, [(secret, "192.0.2.1")])
    assert not isinstance(host, Exception)
    reports.ingest(team.instance, host, {"revision": gone.revision, "state": "applied"})
    (gone,) = deleted_servers.find(team.instance, team.owner).items
    assert gone.acknowledged_at is not None
    assert gone.holds
    assert damaged(team.instance, team.owner) == []


def former(instance: Instance, team: Team) -> tuple[int, int]:
    """Two repositories, the first of which had another path before; their ids."""
    people.ensure_project(instance, team.owner, name="cn-north-4", uid=PROJECT)
    site, other = (
        repositories.create(instance, team.owner, name=name, project_uid=PROJECT).id for name in ("site", "other")
    )
    values = {"path": OLD, "repository_id": site}
    instance.database.write(lambda connection: sealed.insert_row(connection, tables.repository_names, values))
    return site, other


def leads_to(instance: Instance, path: str) -> int | None:
    """The repository that a clone of a path reaches."""
    found = instance.database.read(lambda connection: git_access.repository_at(connection, path))
    return None if found is None else found.id


def test_a_former_path_leads_only_where_keyrack_wrote(team: Team) -> None:
    instance, names = team.instance, tables.repository_names
    site, other = former(instance, team)
    assert leads_to(instance, OLD) == site
    past_keyrack(instance, update(names).values(repository_id=other))
    assert leads_to(instance, OLD) is None
    assert any("former path of repository acme/old" in words for words in alarms(team))
    assert f"former-path:{OLD}" in [row.name for row in damaged(instance, team.owner)]
    past_keyrack(instance, update(names).values(repository_id=site))
    assert leads_to(instance, OLD) == site
    # One that others enter, also with the seal of another, and one that is put back.
    past_keyrack(instance, insert(names).values(path="acme/new", repository_id=other, seal=b"m" * 32))
    row = instance.database.read(lambda connection: dict(connection.execute(select(names)).mappings().all()[0]))
    assert leads_to(instance, "acme/new") is None
    past_keyrack(instance, delete(names).where(names.c.path == "acme/new"))
    instance.database.write(lambda connection: sealed.remove(connection, names, sealed.row_of(OLD)))
    past_keyrack(instance, insert(names).values(**row))
    assert leads_to(instance, OLD) is None
    past_keyrack(instance, delete(names))
    assert damaged(instance, team.owner) == []


def test_a_former_path_that_others_delete_is_an_alarm(team: Team) -> None:
    former(team.instance, team)
    past_keyrack(team.instance, delete(tables.repository_names))
    check_all_rows(team.instance)
    assert any("former path of repository" in words and "was deleted" in words for words in alarms(team))


def test_a_path_that_is_given_anew_leads_to_the_new_one_alone(team: Team) -> None:
    """Also where others spoil the new one's row: the one that had the path before is not reached by it."""
    instance = team.instance
    site, _ = former(instance, team)
    path = f"{PROJECT}/again"
    values = {"path": path, "repository_id": site}
    instance.database.write(lambda connection: sealed.insert_row(connection, tables.repository_names, values))
    again = repositories.create(instance, team.owner, name="again", project_uid=PROJECT)
    assert leads_to(instance, path) == again.id
    held = tables.repositories
    past_keyrack(instance, update(held).where(held.c.id == again.id).values(path="acme/elsewhere"))
    assert leads_to(instance, path) is None
    repositories.delete(instance, team.owner, site)
    assert {row.name for row in damaged(instance, team.owner)} == {f"repository:{again.id}"}


def set_back(connection: Connection) -> None:
    """Make the database what it was before, as whoever can write to it may."""
    for statement in to_before("0340", at="0300"):
        connection.exec_driver_sql(statement)


def former_seal(instance: Instance, keys: list[str]) -> Any:
    """The statement that gives the deleted server the seal that it had before."""
    row = instance.database.read(lambda connection: connection.execute(select(GONE)).mappings().one())
    columns = json.dumps([sorted(keys), row["remove_keys"]])
    return update(GONE).values(
        seal=instance.key.seal("deleted server", row["server_id"], row["host"], row["revision"], columns)
    )


def as_before(team: Team, keys: list[str]) -> None:
    """The database as the version before this one had it: a seal of a kind of its own, and nothing counted."""
    instance = team.instance
    past_keyrack(instance, former_seal(instance, keys))
    past_keyrack(instance, update(KEYS).values(seal=None))
    past_keyrack(instance, update(tables.repository_names).values(seal=None))

    def count(connection: Connection) -> None:
        sealed_tables.count_all(connection, since=access_tree.highest(connection) + 1)

    instance.database.write(count)
    instance.database.write(set_back)
    instance.database.close()


def test_deleted_servers_from_before_are_sealed_once_and_former_paths_never(team: Team) -> None:
    _, keys = deleted_host(team)
    former(team.instance, team)
    as_before(team, keys)
    later = app.open_instance(team.instance.settings)
    try:
        assert refused_there(later, team) == sorted(keys)
        assert leads_to(later, OLD) is None, "no version of Keyrack wrote one"
        assert [row.name for row in damaged(later, team.owner)] == [f"former-path:{OLD}"]
    finally:
        later.database.close()


@pytest.mark.parametrize("what", ["the agent's secret", "obeyed already", "the name"])
def test_a_database_set_back_to_before_has_nothing_taken_as_it_stands(team: Team, what: str) -> None:
    """The former seal left these columns out, so somebody who has it changes them and sets the database back."""
    _, keys = deleted_host(team)
    old = former_seal(team.instance, keys)
    for statement in (CHANGES[what](), old):
        past_keyrack(team.instance, statement)
    team.instance.database.write(set_back)
    team.instance.database.close()
    later = app.open_instance(team.instance.settings)
    try:
        assert refused_there(later, team) is None
        named = {row.name for row in damaged(later, team.owner)}
        assert f"deleted-server:{team.server.id}" in named
    finally:
        later.database.close()


def test_a_deleted_server_entered_before_the_upgrade_gets_no_seal(team: Team) -> None:
    """A deleted server that somebody entered before the upgrade."""
    _, keys = deleted_host(team)
    team.instance.database.write(lambda connection: connection.execute(update(GONE).values(host="h_another")))
    as_before(team, keys[:1])
    later = app.open_instance(team.instance.settings)
    try:
        assert refused_there(later, team) is None
        assert damaged(later, team.owner)
    finally:
        later.database.close()


def test_a_missing_seal_is_damage_where_none_can_be_computed(team: Team) -> None:
    deleted_host(team)
    instance = team.instance
    if instance.database.read(lambda connection: connection.dialect.name) != "postgresql":
        pytest.skip("SQLite has no statement that lets this column be empty")

    def spoil(connection: Connection) -> None:
        sealed_tables.count_all(connection, since=access_tree.highest(connection) + 1)
        connection.exec_driver_sql("ALTER TABLE deleted_servers ALTER COLUMN seal DROP NOT NULL")
        set_back(connection)

    past_keyrack(instance, update(GONE).values(seal=b"", remove_keys=5))
    past_keyrack(instance, update(KEYS).values(seal=None))
    instance.database.write(spoil)
    instance.database.write(lambda connection: connection.exec_driver_sql("UPDATE deleted_servers SET seal = NULL"))
    instance.database.close()
    later = app.open_instance(instance.settings)
    try:
        assert f"deleted-server:{team.server.id}" in {row.name for row in damaged(later, team.owner)}
    finally:
        later.database.close()
