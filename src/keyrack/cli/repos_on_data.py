"""`keyrack repos list` on an instance's own data, with folders; must hold no rule, the core has them."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from keyrack.cli.opened import opened, workspace_named, workspaces
from keyrack.cli.tables import table
from keyrack.core.git import storage
from keyrack.ssh.printable import printable
from keyrack.store import repositories as repository_rows


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
