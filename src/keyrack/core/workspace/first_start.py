"""A new instance's first workspace, admin and token; must replace a secret only where it no longer works."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import Connection

from keyrack.core.git import repositories
from keyrack.core.hosts import servers, system_users
from keyrack.core.hosts.facts import SSH_PORT
from keyrack.core.instance import Instance
from keyrack.core.keys import grants
from keyrack.core.people import actors, first_visit, passwords, tokens, users
from keyrack.model import Actor, Role, Server, User, Workspace
from keyrack.store.hosts import servers as server_rows
from keyrack.store.hosts import system_users as system_user_rows
from keyrack.store.keys import grants as grant_rows
from keyrack.store.people import tokens as token_rows
from keyrack.store.people import users as user_rows
from keyrack.store.people import workspaces

WORKSPACE = "demo"
ADMIN = "admin"
SERVER = "demo-host"
PROJECT = "demo-project"
REPOSITORY = "demo/hello"
TOKEN_NAME = "first token"  # noqa: S105 — a name


@dataclass(frozen=True, slots=True)
class FirstAdmin:
    """Who may do everything at first, with token and password in clear; by: the operator who starts it, or None.

    password: None where the person has chosen another one since.
    """

    workspace: Workspace
    user: User
    token: str
    password: str | None
    by: Actor | None = None


def ensure_admin(
    instance: Instance, by: Actor | None = None, *, token: str | None = None, password: str | None = None
) -> FirstAdmin:
    """Make sure that the demo workspace has its admin, with a token and a password that `keyrack up` can show.

    token, password: those that it showed before, which stay as long as they work. Otherwise new ones are made, as only
    hashes are stored; but a password that the person chose is never replaced.
    """
    workspace = instance.database.read(lambda connection: workspaces.workspace_by_name(connection, WORKSPACE))
    if workspace is None:
        workspace = users.create_workspace(instance, actors.system_actor(channel="up", like=by), WORKSPACE)
    actor = actors.system_actor(workspace.id, channel="up", like=by)
    users.ensure_project(instance, actor, name=PROJECT, uid=None)
    workspace_id = workspace.id
    user = instance.database.read(lambda connection: user_rows.user_by_name(connection, workspace_id, ADMIN))
    if user is None:
        password = secrets.token_urlsafe(12)
        user = users.create_user(instance, actor, name=ADMIN, role=Role.OWNER, password=password)
    elif password is None or not _is_password(instance, user, password):
        password = None if first_visit.chose_password(instance, user.id) else secrets.token_urlsafe(12)
        if password is not None:
            users.change_password(instance, actor, user.id, password)
    kept_token_id = None if token is None else _in_force(instance, user, token)
    for bearer in tokens.of_user(instance, user.id, name=TOKEN_NAME):
        if bearer.token.id != kept_token_id:
            tokens.revoke(instance, actor, bearer)
    if token is None or kept_token_id is None:
        token, _ = tokens.create(instance, actor, user, name=TOKEN_NAME, scopes=("*",))
    return FirstAdmin(workspace=workspace, user=user, token=token, password=password, by=by)


def _is_password(instance: Instance, user: User, password: str) -> bool:
    held = instance.database.read(lambda connection: user_rows.password_hash(connection, user.id))
    return passwords.verify(held, password)


def _in_force(instance: Instance, user: User, secret: str) -> int | None:
    """The id of the user's first token where this is its secret and it still opens everything, else None."""
    bearer = instance.database.read(lambda connection: token_rows.bearer(connection, instance.key.hash_token(secret)))
    if bearer is None or bearer.user.id != user.id or bearer.user.disabled_at is not None:
        return None
    token = bearer.token
    opens_all = token.name == TOKEN_NAME and token.scopes == ("*",) and token.is_in_force(instance.now())
    return token.id if opens_all else None


def ensure_demo_server(instance: Instance, admin: FirstAdmin, username: str) -> Server:
    """Make sure that the demo server exists, with a system user for the calling account and a grant for the admin."""
    actor = actors.system_actor(admin.workspace.id, channel="up", like=admin.by)
    workspace_id = admin.workspace.id
    server = instance.database.read(lambda connection: server_rows.by_name(connection, workspace_id, SERVER))
    if server is None:
        server = servers.create(instance, actor, name=SERVER, address="127.0.0.1", tags=("demo",))
    _ensure_login(instance, actor, server, admin.user, username)
    return server


def note_port(instance: Instance, server: Server, port: int) -> None:
    """Note the port of the demo host's sshd, for the ssh lines that people are shown."""

    def change(connection: Connection) -> None:
        current = server_rows.by_id(connection, server.id)
        assert current is not None
        server_rows.change(connection, server.id, {"facts": {**current.facts, SSH_PORT: port}})

    instance.database.write(change)


def ensure_demo_repository(instance: Instance, admin: FirstAdmin) -> str:
    """Make sure that there is a repository that the admin may push to; answers its path."""
    actor = actors.system_actor(admin.workspace.id, channel="up", like=admin.by)
    repositories.ensure(instance, actor, path=REPOSITORY, members={admin.user.id: "admin"})
    return REPOSITORY


def _ensure_login(instance: Instance, actor: Actor, server: Server, user: User, username: str) -> None:
    known = instance.database.read(lambda connection: system_user_rows.by_name(connection, server.id, username))
    if known is None:
        system_users.create(instance, actor, server.id, username=username)
    given = instance.database.read(lambda connection: grant_rows.find_grants(connection, actor.workspace_id))
    if not any(
        (grant.user_id, grant.server_id, grant.system_user) == (user.id, server.id, username) for grant in given
    ):
        grants.give(instance, actor, user_id=user.id, server_id=server.id, system_user=username)
