"""Whoever can write to the database alone opens nothing: every row that decides carries a seal, and is named if not."""

from __future__ import annotations

import ast
import importlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Inspector, create_engine, delete, insert, inspect, select, text, update

from keyrack import app
from keyrack.core.altered_rows import WORDS
from keyrack.core.audit import events
from keyrack.core.git import access, repositories
from keyrack.core.hosts import documents, enrolment, modes, servers
from keyrack.core.keys import credentials, damaged_rows, grants, revocation, user_keys
from keyrack.core.people import access_keys, actors, basic_access, groups, tokens
from keyrack.core.people import users as people
from keyrack.core.people.tokens import Scope, SignIn
from keyrack.core.sealing import COUNTED, MARK
from keyrack.errors import Kind, Refusal
from keyrack.model import Role, User
from keyrack.ssh.public_key import parse
from keyrack.store import tables
from keyrack.store.engine import migrate
from keyrack.store.sealing import access_tree
from keyrack.store.sealing.seals import OF_SERVER, SEALED_TABLES, VOLATILE
from tests.core.all_damaged_rows import damaged
from tests.core.conftest import Team, actor, make_team
from tests.core.keys_for_tests import fresh_line
from tests.core.set_back import UNDO
from tests.services import settings_for
from tests.store.test_migrations import connected

SOURCE = Path(__file__).parents[2] / "src" / "keyrack"
PROJECT = "aa2d97d7e62c4b7da3ffdfc11551f878"


@dataclass(frozen=True)
class World:
    """A team with something of everything, and mallory, who may write to the database and has an account."""

    team: Team
    mallory: User
    key: str
    evil: str
    group: int
    repository: Any
    token: str
    access_key: tuple[str, str]

    def alter(self, statement: Any) -> None:
        """Past Keyrack."""
        self.team.instance.database.write(lambda connection: connection.execute(statement))

    def opened(self) -> dict[str, list[str]]:
        """Who gets in on the server: the keys of each account in its document."""
        signed = documents.signed(self.team.instance, self.team.server.id)
        assert signed is not None
        users = json.loads(signed.text)["users"]
        return {name: sorted(line["key"] for line in lines) for name, lines in users.items()}

    def alarms(self) -> list[str]:
        found = events.find(self.team.instance, self.team.owner, limit=1000).items
        return [event.summary for event in found if event.level == "alarm"]

    def role(self, secret: str) -> Role | None:
        """The role that a token gives; None where it is not in force."""
        try:
            return tokens.authenticate(self.team.instance, secret, address="203.0.113.1", channel="test").role
        except Refusal:
            return None

    def may(self, verb: str) -> bool:
        """Whether mallory's key does it in the repository."""
        holder = access.holder_of(self.team.instance, parse(self.evil).fingerprint)
        if holder is None:
            return False
        try:
            access.decide(self.team.instance, holder, verb, self.repository.path)
        except Refusal:
            return False
        return True


@pytest.fixture
def world(team: Team) -> World:
    instance, owner = team.instance, team.owner
    mallory_actor, mallory = actor(instance, owner.workspace_id, "mallory", Role.MEMBER, "codeartsrepo::*")
    key, evil = fresh_line(), fresh_line()
    user_keys.add(instance, team.member, title="laptop", public_key=key)
    user_keys.add(instance, mallory_actor, title="laptop", public_key=evil)
    groups.ensure(instance, owner, name="ops", user_ids=[team.member_user.id])
    group = groups.id_of(instance, owner, "ops")
    grants.give(instance, owner, group_id=group, tag="web", system_user="deploy")
    people.ensure_project(instance, owner, name="cn-north-4", uid=PROJECT)
    repository = repositories.create(instance, owner, name="site", project_uid=PROJECT)
    token, _ = tokens.create(instance, actors.system_actor(owner.workspace_id), mallory, name="laptop", scopes=("*",))
    made = access_keys.create(instance, mallory_actor)
    return World(team, mallory, key, evil, group, repository, token, (made.id, made.secret))


@pytest.mark.parametrize(
    "values",
    [
        {"mode": "observe"},
        {"sshd": {"password_authentication": "yes"}},
        {"offline_after_seconds": 5, "offline_then": "close"},
        {"agent_secret_hash": b"m" * 32},
        {"host": "another"},
        {"revision": 1},
        {"seal": b"m" * 32},
        {"seal": None},
    ],
    ids=lambda values: next(iter(values)),
)
def test_nothing_is_signed_for_a_server_whose_row_was_changed(world: World, values: dict[str, Any]) -> None:
    team = world.team
    other = servers.create(team.instance, team.owner, name="web-2", address="192.0.2.11", tags=("web",))
    assert parse(world.key).canonical in world.opened()["deploy"]
    statement = update(tables.servers).where(tables.servers.c.id == team.server.id)
    world.alter(statement.values(**values))
    with pytest.raises(Refusal) as refused:
        documents.signed(team.instance, team.server.id)
    assert refused.value.kind is Kind.UNAVAILABLE
    if "agent_secret_hash" in values:
        world.alter(statement.values(agent_secret_hash=team.instance.key.hash_token("mallory's")))
        (answer,) = enrolment.authenticate_together(team.instance, [("mallory's", "203.0.113.1")])
        assert isinstance(answer, Refusal)
        assert answer.kind is Kind.UNAVAILABLE
    assert documents.signed(team.instance, other.id) is not None, "the others go on"
    # What is done meanwhile does not seal it by the way.
    credentials.add(
        team.instance, team.owner, team.server.id, label="later", username="deploy", public_key=fresh_line()
    )
    modes.set_offline_policy(team.instance, team.owner, server_id=team.server.id, after_seconds=0, then="keep")
    with pytest.raises(Refusal):
        documents.signed(team.instance, team.server.id)
    assert len([words for words in world.alarms() if "server 1 " in words]) == 1
    assert [row.name for row in damaged(team.instance, team.owner, team.server.id)] == ["server:1"]
    # Looked at and decided by the operator, it counts again.
    damaged_rows.reseal(team.instance, actors.system_actor(team.owner.workspace_id), ["server:1"])
    assert damaged(team.instance, team.owner) == []
    assert documents.signed(team.instance, team.server.id) is not None
    assert any("Sealed the damaged row server:1" in words for words in world.alarms())


def of_mallory(world: World, **values: Any) -> Any:
    return update(tables.users).where(tables.users.c.id == world.mallory.id).values(**values)


def test_rights_changed_in_the_database_do_not_count(world: World) -> None:
    assert world.role(world.token) is Role.MEMBER
    for values in ({"role": "owner"}, {"policies": ["*"]}, {"name": "olga2"}):
        world.alter(of_mallory(world, **values))
        assert world.role(world.token) is None, values
        with pytest.raises(Refusal):
            basic_access.authenticate(world.team.instance, *world.access_key, address="203.0.113.1", channel="test")
        with pytest.raises(Refusal):
            tokens.sign_in(
                world.team.instance,
                SignIn("mallory's password", user_uid=world.mallory.uid),
                Scope(),
                address="203.0.113.1",
            )
        assert not world.may("fetch")
    assert len([words for words in world.alarms() if f"user {world.mallory.id} " in words]) == 2, "one for each name"
    assert [row.name for row in damaged(world.team.instance, world.team.owner)] == [f"user:{world.mallory.id}"]
    # Who may manage people still sees and deletes him.
    people.delete_user(world.team.instance, world.team.owner, world.mallory.id)
    assert damaged(world.team.instance, world.team.owner) == []


@pytest.mark.parametrize("team_template", ["sqlite"], indirect=True)
def test_bytes_in_place_of_a_text_that_is_their_digits_are_an_alteration(world: World) -> None:
    """SQLite keeps any type in any column: "beef" and the bytes be ef would stand alike under a seal."""
    instance, owner = world.team.instance, world.team.owner
    beef = people.create_user(instance, owner, name="beef", role=Role.MEMBER).id
    assert damaged(instance, owner) == []
    world.alter(text("UPDATE users SET name = x'beef' WHERE name = 'beef'"))
    assert [row.name for row in damaged(instance, owner)] == [f"user:{beef}"]
    world.alter(text("UPDATE users SET name = 'beef' WHERE name = x'beef'"))
    assert damaged(instance, owner) == []
    world.alter(text("UPDATE tokens SET secret_hash = lower(hex(secret_hash))"))
    assert {row.name.partition(":")[0] for row in damaged(instance, owner)} == {"token"}


def test_a_disabled_user_and_anothers_password_stay_out(world: World) -> None:
    people.change(world.team.instance, world.team.owner, world.mallory.id, enabled=False)
    assert world.role(world.token) is None
    world.alter(of_mallory(world, disabled_at=None))
    assert world.role(world.token) is None
    owner = select(tables.users.c.password_hash).where(tables.users.c.id == world.mallory.id).scalar_subquery()
    world.alter(update(tables.users).where(tables.users.c.name == "olga").values(password_hash=owner))
    with pytest.raises(Refusal):
        tokens.sign_in(
            world.team.instance,
            SignIn("mallory's password", workspace_name="acme", user_name="olga"),
            Scope(),
            address="203.0.113.1",
        )


def test_a_token_is_its_users_with_what_it_was_given(world: World) -> None:
    held = tables.tokens
    olga = world.team.owner.user_id
    mine = held.c.user_id == world.mallory.id
    for values in ({"scopes": ["*", "x"]}, {"expires_at": None, "kind": "iam"}, {"user_id": olga}):
        world.alter(update(held).where(mine).values(**values))
        assert world.role(world.token) is None, values
    secret_hash = world.team.instance.key.hash_token("mallory's own secret")
    row = world.team.instance.database.read(lambda connection: connection.execute(select(held)).mappings().first())
    assert row is not None
    entered = {**row, "id": 99, "user_id": olga, "secret_hash": secret_hash}
    world.alter(insert(held).values(**entered))
    assert world.role("mallory's own secret") is None
    assert any("token 99" in words for words in world.alarms())


def test_a_revoked_token_and_an_access_key_switched_off_do_not_come_back(world: World) -> None:
    instance = world.team.instance
    (bearer,) = tokens.of_user(instance, world.mallory.id, name="laptop")
    tokens.revoke(instance, actors.system_actor(world.team.owner.workspace_id), bearer)
    world.alter(update(tables.tokens).values(revoked_at=None))
    assert world.role(world.token) is None
    olga = world.team.owner.user_id
    world.alter(update(tables.access_keys).values(user_id=olga))
    with pytest.raises(Refusal):
        basic_access.authenticate(instance, *world.access_key, address="203.0.113.1", channel="test")
    assert any(f"access key {world.access_key[0]}" in words for words in world.alarms())


def entered(world: World, kind: str) -> Any:
    """A row that mallory enters to get onto the server."""
    seal = b"m" * 32
    at = world.mallory.created_at
    if kind == "member":
        return insert(tables.group_members).values(group_id=world.group, user_id=world.mallory.id, seal=seal)
    if kind == "grant":
        values = {"workspace_id": world.mallory.workspace_id, "user_id": world.mallory.id, "server_id": 1}
        return insert(tables.grants).values(**values, system_user="root", restrictions={}, created_at=at, seal=seal)
    if kind == "grant's group":
        return update(tables.groups).values(name="everybody")
    if kind == "system user":
        deploy = tables.system_users.c.username == "deploy"
        return update(tables.system_users).where(deploy).values(username="www-data")
    assert kind == "user key"
    return (
        update(tables.user_keys)
        .where(tables.user_keys.c.user_id == world.mallory.id)
        .values(user_id=world.team.member_user.id)
    )


@pytest.mark.parametrize("kind", ["member", "grant", "grant's group", "system user", "user key"])
def test_a_row_entered_in_the_database_opens_no_account(world: World, kind: str) -> None:
    if kind == "system user":
        credentials.add(
            world.team.instance, world.team.owner, 1, label="laptop", username="deploy", public_key=world.key
        )
    assert world.opened() == {"deploy": [parse(world.key).canonical]}
    world.alter(entered(world, kind))
    after = world.opened()
    assert {key for keys in after.values() for key in keys} <= {parse(world.key).canonical}
    assert set(after) <= {"deploy"}
    names = [row.name for row in damaged(world.team.instance, world.team.owner)]
    assert names
    if kind != "system user":
        assert len(world.alarms()) == 1
    damaged_rows.reseal(world.team.instance, actors.system_actor(world.team.owner.workspace_id), ["all"])
    assert damaged(world.team.instance, world.team.owner) == []


def test_a_tag_entered_past_keyrack_opens_no_server(world: World) -> None:
    team = world.team
    entered_tag, edited_tag = (
        servers.create(team.instance, team.owner, name=name, address="192.0.2.12", tags=("db",)).id
        for name in ("db-1", "db-2")
    )
    world.alter(insert(tables.server_tags).values(server_id=entered_tag, tag="web", seal=b"m" * 32))
    mine = tables.server_tags.c.server_id == edited_tag
    world.alter(update(tables.server_tags).where(mine).values(tag="web"))
    for number, tags in ((entered_tag, ("db",)), (edited_tag, ())):
        signed = documents.signed(team.instance, number)
        assert signed is not None
        assert json.loads(signed.text)["users"] == {}
        assert {row.name for row in damaged(team.instance, team.owner, number)} == {f"tag:{number},web"}
        assert servers.get(team.instance, team.owner, number).tags == tags


def test_an_enrolment_token_entered_in_the_database_enrols_no_host(world: World) -> None:
    at = world.mallory.created_at
    secret_hash = world.team.instance.key.hash_token("mallory's")
    values = {"server_id": 1, "secret_hash": secret_hash, "created_at": at, "expires_at": at + timedelta(days=1000)}
    world.alter(insert(tables.enrolments).values(**values, seal=b"m" * 32))
    with pytest.raises(Refusal) as refused:
        enrolment.enrol(world.team.instance, "mallory's", {}, address="203.0.113.1")
    assert refused.value.kind is Kind.FORBIDDEN
    # An honest one, spent and made fresh again.
    invited = servers.invite(world.team.instance, world.team.owner, 1)
    enrolment.enrol(world.team.instance, invited, {}, address="203.0.113.1")
    world.alter(update(tables.enrolments).values(used_at=None))
    with pytest.raises(Refusal):
        enrolment.enrol(world.team.instance, invited, {}, address="203.0.113.1")


def test_a_repository_is_open_to_whom_it_was_opened(world: World) -> None:
    assert not world.may("fetch")
    world.alter(update(tables.repositories).values(visibility=20))
    assert not world.may("fetch")
    damaged_rows.reseal(world.team.instance, actors.system_actor(world.team.owner.workspace_id), ["repository:1"])
    world.alter(update(tables.repositories).values(visibility=0))
    damaged_rows.reseal(world.team.instance, actors.system_actor(world.team.owner.workspace_id), ["repository:1"])
    values = {"repository_id": 1, "user_id": world.mallory.id, "role": "admin", "created_at": world.mallory.created_at}
    world.alter(insert(tables.repository_members).values(**values, seal=b"m" * 32))
    assert not world.may("fetch")
    assert any("repository member" in words for words in world.alarms())
    world.alter(delete(tables.repository_members).where(tables.repository_members.c.user_id == world.mallory.id))
    repositories.set_member(
        world.team.instance, world.team.owner, 1, user_uid=world.mallory.uid, role="viewer", new=True
    )
    assert world.may("fetch")
    world.alter(update(tables.repository_members).values(role="admin"))
    assert not world.may("push")


def test_a_changed_revocation_goes_on_refusing(world: World) -> None:
    team = world.team
    revocation.revoke_everywhere(team.instance, team.owner, parse(world.evil).fingerprint)
    world.alter(update(tables.revoked_keys).values(reason="a mistake"))
    with pytest.raises(Refusal):
        user_keys.add(team.instance, team.member, title="mine", public_key=world.evil)
    assert any("key revoked everywhere" in words for words in world.alarms())
    credentials.add(team.instance, team.owner, 1, label="x", username="deploy", public_key=(line := fresh_line()))
    (row,) = credentials.find(team.instance, team.owner, 1).items
    credentials.delete(team.instance, team.owner, 1, row.id)
    world.alter(update(tables.revocations).values(revision=10**9))
    signed = documents.signed(team.instance, 1)
    assert signed is not None
    assert parse(line).canonical in json.loads(signed.text)["revoked"]
    assert any("revocation 1,SHA256:" in words for words in world.alarms())


def test_only_the_operator_seals_again(world: World) -> None:
    world.alter(of_mallory(world, role="owner"))
    with pytest.raises(Refusal) as refused:
        damaged_rows.reseal(world.team.instance, world.team.owner, [f"user:{world.mallory.id}"])
    assert refused.value.kind is Kind.FORBIDDEN
    with pytest.raises(Refusal) as refused:
        damaged_rows.remove(world.team.instance, world.team.owner, f"user:{world.mallory.id}")
    assert refused.value.kind is Kind.INVALID


NAMES = importlib.import_module("keyrack.store.migrations.r0040_names")
UNSEALED = "0016"


@pytest.fixture(scope="module")
def before_seals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inspector]:
    """What tables, columns and indexes there were before there were seals."""
    url = f"sqlite:///{tmp_path_factory.mktemp('unsealed') / 'keyrack.db'}"
    migrate.upgrade(url, to=UNSEALED)
    engine = create_engine(url)
    yield inspect(engine)
    engine.dispose()


def unseal(connection: Connection, before: Inspector) -> None:
    """Make a database what it was before there were seals, as whoever can write to it may."""
    _name_as_before(connection)
    there = set(before.get_table_names())
    for table in reversed(tables.metadata.sorted_tables):
        if table.name not in there and inspect(connection).has_table(table.name):
            connection.exec_driver_sql(f"DROP TABLE {table.name}")
    now = inspect(connection)
    for name in sorted(there):
        former = {index["name"] for index in before.get_indexes(name)}
        for index in now.get_indexes(name):
            if index["name"] not in former and "duplicates_constraint" not in index:
                connection.exec_driver_sql(f"DROP INDEX {index['name']}")
        kept = {column["name"] for column in before.get_columns(name)}
        for column in now.get_columns(name):
            if column["name"] not in kept:
                connection.exec_driver_sql(f"ALTER TABLE {name} DROP COLUMN {column['name']}")
    connection.exec_driver_sql("DELETE FROM instance_facts WHERE name = 'rows are sealed'")
    connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{UNSEALED}'")


def _name_as_before(connection: Connection) -> None:
    """What a later migration calls otherwise, under its former names."""
    for statement in (*UNDO["0405"], *UNDO["0390"]):
        connection.exec_driver_sql(statement)
    for table, old, new in NAMES.COLUMNS:
        connection.exec_driver_sql(f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}")
    connection.exec_driver_sql("DROP INDEX ix_unmanaged_keys_fingerprint")
    connection.exec_driver_sql("ALTER TABLE unmanaged_keys RENAME TO found_keys")
    connection.exec_driver_sql("ALTER TABLE reported_documents RENAME TO told_documents")
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ALTER TABLE told_documents DROP CONSTRAINT pk_reported_documents")
        connection.exec_driver_sql("ALTER SEQUENCE unmanaged_keys_id_seq RENAME TO found_keys_id_seq")
        connection.exec_driver_sql("ALTER TABLE found_keys DROP CONSTRAINT pk_unmanaged_keys")
        for (name,) in connection.exec_driver_sql(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'found_keys'::regclass AND contype = 'u'"
        ).all():
            connection.exec_driver_sql(f"ALTER TABLE found_keys DROP CONSTRAINT {name}")


def test_a_database_from_before_is_sealed_once_and_never_again(
    bare_url: str, before_seals: Inspector, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    settings = settings_for(folder, bare_url)
    instance = app.open_instance(settings)
    team = make_team(instance)
    line = fresh_line()
    user_keys.add(instance, team.member, title="laptop", public_key=line)
    token, _ = tokens.create(
        instance, actors.system_actor(team.owner.workspace_id), team.member_user, name="laptop", scopes=("*",)
    )
    instance.database.close()
    assert (folder / MARK).exists()
    assert migrate.current(bare_url) == migrate.head()

    with connected(bare_url) as connection:
        unseal(connection, before_seals)
        former = instance.key.seal("user key", team.member_user.id, parse(line).canonical)
        connection.execute(update(tables.user_keys).values(seal=former))
    # As the first start after the upgrade finds it: no mark beside the key.
    (folder / MARK).unlink()
    (folder / COUNTED).unlink()
    instance = app.open_instance(settings)
    assert tokens.authenticate(instance, token, address="203.0.113.1", channel="test").name == "alice"
    assert damaged(instance, actors.system_actor(team.owner.workspace_id)) == []
    instance.database.close()
    assert (folder / MARK).exists()

    # The mark is there: emptied and set back by others, it is not sealed a second time.
    with connected(bare_url) as connection:
        unseal(connection, before_seals)
        connection.exec_driver_sql("UPDATE users SET role = 'owner'")
    instance = app.open_instance(settings)
    with pytest.raises(Refusal):
        tokens.authenticate(instance, token, address="203.0.113.1", channel="test")
    # An operator who knows why (a copy from before, put back by hand) seals it by decision.
    damaged_rows.reseal(instance, actors.system_actor(team.owner.workspace_id), ["all"])
    assert tokens.authenticate(instance, token, address="203.0.113.1", channel="test").name == "alice"
    instance.database.close()


def test_another_machine_with_a_copy_of_the_key_seals_nothing(bare_url: str, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    instance = app.open_instance(settings_for(first, bare_url))
    team = make_team(instance)
    token, _ = tokens.create(
        instance, actors.system_actor(team.owner.workspace_id), team.member_user, name="laptop", scopes=("*",)
    )
    second.mkdir()
    shutil.copy(first / "instance.key", second)
    instance.database.write(lambda connection: connection.exec_driver_sql("UPDATE users SET role = 'owner'"))
    other = app.open_instance(settings_for(second, bare_url))
    with pytest.raises(Refusal):
        tokens.authenticate(other, token, address="203.0.113.1", channel="test")
    assert (second / MARK).exists()
    other.database.close()
    instance.database.close()


def innermost(call: ast.Call) -> ast.Call:
    """The call that a chain such as update(table).where(...).values(...) begins with."""
    while isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Call):
        call = call.func.value
    return call


def table_of(call: ast.Call) -> str:
    """The table that a call names first, as it is written there."""
    first = call.args[0] if call.args else None
    return first.id if isinstance(first, ast.Name) else first.attr if isinstance(first, ast.Attribute) else ""


def writes(tree: ast.AST) -> list[str]:
    """The sealed tables that a module writes by statements of its own, other than columns that no seal is over."""
    names = {"insert", "update", "delete", "dialect_insert", "sqlite_insert", "postgresql_insert"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    unsealed = set()
    for call in calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr == "values" and call.keywords:
            begun = innermost(call)
            if {one.arg for one in call.keywords} <= VOLATILE.get(table_of(begun), frozenset()) and not call.args:
                unsealed.add(begun)
    return [
        table_of(call)
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id in names
        and table_of(call) in VOLATILE
        and call not in unsealed
    ]


def test_columns_that_no_seal_is_over_are_all_that_is_written_past_it() -> None:
    past = "update(credentials).where(credentials.c.id == 1).values({})"
    assert writes(ast.parse(past.format("acknowledged_at=at"))) == []
    assert writes(ast.parse(past.format("acknowledged_at=at, label=label"))) == ["credentials"]
    assert writes(ast.parse(past.format("more, acknowledged_at=at"))) == ["credentials"]
    assert writes(ast.parse(past.format("**more"))) == ["credentials"]
    assert writes(ast.parse("new = update(tables.credentials)\nnew.values(acknowledged_at=at)")) == ["credentials"]


WHY = "written past store/sealing/sealed.py, a row has no seal: use sealed.insert_row, sealed.change or sealed.remove"


def test_sealed_tables_are_written_in_one_way() -> None:
    for file in sorted(SOURCE.rglob("*.py")):
        if "migrations" not in file.parts:
            assert writes(ast.parse(file.read_text("utf-8"))) == [], f"{file}: {WHY}"


def test_every_table_is_sealed_or_decides_nothing() -> None:
    undecided = {
        "access_key_failures", "alembic_version", "changes", "events",
        "unmanaged_keys", "instance_facts", "key_owners", "key_uses", "sessions", "reported_documents",
        "workspaces", "access_tree", "audit_checkpoints", "audit_leaves", "audit_nodes",
        "git_endpoints", "key_challenges", "offboarding_git", "offboarding_hosts",
        "spent_proofs",
        "freezes", "reported_logins", "older_marks", "webhooks", "webhook_deliveries", "daily_tallies",
    }  # fmt: skip
    assert set(tables.metadata.tables) - set(VOLATILE) <= undecided, "say whether the new table decides"
    assert set(VOLATILE) <= set(WORDS), "an alarm must have a word for it"
    assert set(SEALED_TABLES) == set(damaged_rows.KINDS.values()), "it can be named where it is damaged"
    for table in SEALED_TABLES:
        assert "seal" in table.c
        assert VOLATILE[table.name] <= set(table.c.keys())
        counted = table.name in OF_SERVER or table.name in access_tree.TREES
        assert counted, f"say in access_tree.TREES, under a number of its own, where rows of {table.name} are counted"
