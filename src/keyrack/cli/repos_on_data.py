"""`keyrack repos list` on an instance's own data, with folders; must hold no rule, the core has them."""

from __future__ import annotations

from functools import partial
from typing import Any

from keyrack.cli.connection.opened import opened, workspace_named, workspaces
from keyrack.cli.output.tables import dash, table
from keyrack.core.git import storage
from keyrack.store.git import repositories as repository_rows


def show(json_wanted: bool, given: dict[str, Any]) -> None:
    """List the repositories of one workspace, or of all, each with its folder."""
    workspace = given.pop("workspace")
    with opened(given) as instance:
        owners = workspaces(instance) if workspace is None else (workspace_named(instance, workspace),)
        root = storage.root_of(instance.settings.data)
        rows: list[tuple[object, ...]] = []
        for owner in owners:
            for repository in instance.database.read(partial(repository_rows.in_workspace, workspace_id=owner.id)):
                folder = storage.folder_of(root, repository)
                rows.append(
                    (
                        repository.id,
                        repository.path,
                        repository.visibility,
                        dash(repository.default_branch),
                        str(folder),
                        owner.name,
                    )
                )
        table(("ID", "PATH", "VISIBILITY", "BRANCH", "FOLDER", "WORKSPACE"), rows, json_wanted)
