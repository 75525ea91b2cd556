"""An instance on each kind of database, and the people of a workspace as actors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from keyrack import app
from keyrack.core.hosts import servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.people import actors, users
from keyrack.model import Actor, Role, Server, SystemUser, User
from tests.databases import DIALECTS
from tests.postgres import Cluster, database_name
from tests.services import settings_for


@dataclass(frozen=True)
class Team:
    """A workspace with an owner, a member who may have keys, and one server."""

    instance: Instance
    owner: Actor
    member: Actor
    member_user: User
    server: Server
    deploy: SystemUser


def actor(instance: Instance, workspace_id: int, name: str, role: Role, *policies: str) -> tuple[Actor, User]:
    """A new user of a workspace, as an actor at a client."""
    by = actors.system_actor(workspace_id)
    user = users.create_user(instance, by, name=name, role=role, policies=policies, password=f"{name}'s password")
    return actors.of_user(user, address="203.0.113.9", channel="test"), user


def make_team(instance: Instance, name: str = "acme") -> Team:
    """Found a workspace and fill it."""
    workspace = users.create_workspace(instance, actors.system_actor(), name)
    owner, _ = actor(instance, workspace.id, "olga", Role.OWNER)
    member, user = actor(instance, workspace.id, "alice", Role.MEMBER, "codeartsrepo::*")
    server = servers.create(instance, owner, name="web-1", address="192.0.2.10", tags=("web",))
    deploy = system_users.create(instance, owner, server.id, username="deploy")
    return Team(instance, owner, member, user, server, deploy)


@dataclass(frozen=True)
class TeamTemplate:
    """make_team's workspace as a test before left it to be copied: its records, its data folder, its database."""

    team: Team
    data: Path
    database: str


@pytest.fixture(scope="session")
def team_in_sqlite(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> TeamTemplate:
    """A team in a file, to be copied."""
    folder = tmp_path_factory.mktemp("template")
    shutil.copyfile(migrated_file, folder / "keyrack.db")
    return _create_template(folder / "data", f"sqlite:///{folder / 'keyrack.db'}", str(folder / "keyrack.db"))


@pytest.fixture(scope="session")
def team_in_postgresql(
    cluster: Cluster, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TeamTemplate]:
    """A team in a database, to be copied."""
    url = cluster.create_database(migrated_template)
    yield _create_template(tmp_path_factory.mktemp("template") / "data", url, database_name(url))
    cluster.drop_database(url)


def _create_template(data: Path, url: str, database: str) -> TeamTemplate:
    instance = app.open_instance(settings_for(data, url))
    team = make_team(instance)
    instance.database.close()
    return TeamTemplate(team, data, database)


@pytest.fixture(params=DIALECTS)
def team_template(request: pytest.FixtureRequest) -> TeamTemplate | None:
    """What the test's database is a copy of, once of each kind; None where it asks for no team: an empty one."""
    if "team" not in request.fixturenames:
        return None
    made: TeamTemplate = request.getfixturevalue(f"team_in_{request.param}")
    return made


@pytest.fixture
def database_url(request: pytest.FixtureRequest, team_template: TeamTemplate | None, tmp_path: Path) -> Iterator[str]:
    """The address of a migrated database, once of each kind; with the team in it where the test asks for `team`."""
    dialect = request.node.callspec.params["team_template"]
    if team_template is None:
        yield request.getfixturevalue(f"{dialect}_url")
    elif dialect == "sqlite":
        path = tmp_path / "keyrack.db"
        shutil.copyfile(team_template.database, path)
        path.chmod(0o600)
        yield f"sqlite:///{path}"
    else:
        cluster: Cluster = request.getfixturevalue("cluster")
        url = cluster.create_database(team_template.database)
        yield url
        cluster.drop_database(url)


@pytest.fixture
def instance(database_url: str, team_template: TeamTemplate | None, tmp_path: Path) -> Iterator[Instance]:
    """An instance on an empty database, or on one with the team, once of each kind."""
    if team_template is not None:
        shutil.copytree(team_template.data, tmp_path / "data")
    opened = app.open_instance(settings_for(tmp_path / "data", database_url))
    yield opened
    opened.database.close()


@pytest.fixture
def team(instance: Instance, team_template: TeamTemplate | None) -> Team:
    """A workspace to work in, on each kind of database."""
    assert team_template is not None
    return replace(team_template.team, instance=instance)
