"""An instance on each kind of database, and the people of a workspace as actors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyrack import app
from keyrack.core.hosts import servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.people import users
from keyrack.core.people.tokens import actor_of
from keyrack.model import Actor, Role, Server, SystemUser, User
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
    by = users.system_actor(workspace_id)
    user = users.create_user(instance, by, name=name, role=role, policies=policies, password=f"{name}'s password")
    return actor_of(user, None, address="203.0.113.9", channel="test"), user


def make_team(instance: Instance, name: str = "acme") -> Team:
    """Found a workspace and fill it."""
    workspace = users.create_workspace(instance, users.system_actor(), name)
    owner, _ = actor(instance, workspace.id, "olga", Role.OWNER)
    member, user = actor(instance, workspace.id, "alice", Role.MEMBER, "codeartsrepo::*")
    server = servers.create(instance, owner, name="web-1", address="192.0.2.10", tags=("web",))
    deploy = system_users.create(instance, owner, server.id, username="deploy")
    return Team(instance, owner, member, user, server, deploy)


@pytest.fixture
def instance(database_url: str, tmp_path: Path) -> Iterator[Instance]:
    """An instance on an empty database, once of each kind."""
    opened = app.open_instance(settings_for(tmp_path / "data", database_url))
    yield opened
    opened.database.close()


@pytest.fixture
def team(instance: Instance) -> Team:
    """A workspace to work in, on each kind of database."""
    return make_team(instance)
