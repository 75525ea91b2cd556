"""`keyrack repos create` and `list` on an instance's own data; must hold no rule, the core has them."""

from __future__ import annotations

from functools import partial
from typing import Any

import click
from sqlalchemy import Connection

from keyrack.cli.opened import opened, workspace_named, workspaces
from keyrack.cli.operator import operator
from keyrack.cli.shown import say
from keyrack.cli.tables import table
from keyrack.core.git import access, repositories, storage
from keyrack.core.instance import Instance
from keyrack.core.people import users
from keyrack.model import Workspace
from keyrack.ssh.printable import printable
from keyrack.store import people as people_rows
from keyrack.store import repositories as repository_rows


def create(path: str, members: tuple[str, ...], given: dict[str, Any]) -> None:
    """Create a repository, or set its members; members: USER=ROLE; given: where, as `either` asks for it."""
    workspace = given.pop("workspace")
    with opened(given) as instance:
        owner = workspace_named(instance, workspace)
        actor = users.system_actor(owner.id, channel="cli", like=operator())
        wanted = dict(_member(instance, owner, text) for text in members)
        known = instance.database.read(lambda connection: repository_rows.by_path(connection, path))
        if known is not None and known.workspace_id == owner.id and not wanted:
            wanted = instance.database.read(lambda connection: _held(connection, known.id))
        made = repositories.ensure(instance, actor, path=path, members=wanted)
        say(f"{'Created' if made else 'Nothing to change:'} {path}", err=True)
        say(access.clone_address(instance, path))


def show(json_wanted: bool, given: dict[str, Any]) -> None:
    """List the repositories of one workspace, or of all, each with its folder."""
    workspace = given.pop("workspace")
    with opened(given) as instance:
        owners = workspaces(instance) if workspace is None else (workspace_named(instance, workspace),)
        root = storage.root_of(instance.settings.data)
        rows: list[tuple[object, ...]] = []
        for owner in owners:
            for found in instance.database.read(partial(repository_rows.in_workspace, workspace_id=owner.id)):
                folder = storage.folder_of(root, found)
                rows.append((found.path, found.visibility, str(folder), owner.name))
        if json_wanted:
            table(("PATH", "VISIBILITY", "FOLDER", "WORKSPACE"), rows, json_wanted)
            return
        for row in rows:
            click.echo("\t".join(printable(str(word)) for word in row[:3]))


def _held(connection: Connection, repository_id: int) -> dict[int, str]:
    return {user: role.value for user, role in repository_rows.members(connection, repository_id).items()}


def _member(instance: Instance, owner: Workspace, text: str) -> tuple[int, str]:
    name, _, role = text.rpartition("=")
    if not name:
        raise click.UsageError(f"--member takes USER=ROLE, not {text!r}.")
    user = instance.database.read(lambda connection: people_rows.user_by_name(connection, owner.id, name))
    if user is None:
        raise click.ClickException(f"There is no user {name!r} in the workspace {owner.name}.")
    return user.id, role
