"""Git repositories and who may read or write them; must not touch Git itself."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from keyrack.core.instance import Instance
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, RepositoryRole
from keyrack.store import repositories

# Two to five parts; none starts with a dot or a dash, so that no part is a hidden file or an option.
PATH = re.compile(r"(?=.{3,255}\Z)[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*){1,4}")


def path_of(value: object) -> str:
    """A repository's path, e.g. acme/site; raises Refusal INVALID."""
    if isinstance(value, str) and PATH.fullmatch(value) and not value.endswith((".git", ".lock", ".")):
        return value
    raise invalid(
        "path",
        "A repository's path is GROUP/NAME: letters, digits, dots, dashes and underscores, "
        "no part starting with a dot or dash, and no .git at the end.",
    )


def ensure(
    instance: Instance,
    actor: Actor,
    *,
    path: str,
    repository_id: int | None = None,
    members: Mapping[int, str],
) -> bool:
    """Make a repository exist with exactly these members (user id to role); False when it did already."""
    name = path_of(path)
    wanted = {user_id: _role(role) for user_id, role in members.items()}
    known = instance.database.read(lambda connection: repositories.by_path(connection, name))
    if known is not None:
        held = instance.database.read(lambda connection: repositories.members(connection, known.id))
        if known.workspace_id == actor.workspace_id and held == wanted:
            return False
    attempt = Attempt(
        instance,
        actor,
        "codeartsrepo:repository:createRepository",
        "set up a repository",
        target_kind="repository",
    )
    with attempt:

        def change(work: Work) -> bool:
            found = repositories.by_path(work.connection, name)
            if found is not None and found.workspace_id != actor.workspace_id:
                raise Refusal(Kind.TAKEN, "path-taken", f"The path {name} is taken.", field="path")
            number = found.id if found is not None else _add(work, name, repository_id)
            held = repositories.members(work.connection, number)
            for user_id, role in wanted.items():
                if held.get(user_id) is not role:
                    repositories.set_member(work.connection, number, user_id, role, work.now)
            for user_id in held.keys() - wanted.keys():
                repositories.remove_member(work.connection, number, user_id)
            work.record(f"Set up repository {name} with {len(wanted)} members", target_id=number)
            return True

        return attempt.write(change)


def _add(work: Work, path: str, repository_id: int | None) -> int:
    values = {
        "workspace_id": work.actor.workspace_id,
        "uid": secrets.token_hex(16),
        "path": path,
        "visibility": 0,
        "default_branch": "main",
        "protect_default": False,
        "created_by": work.actor.user_id,
        "created_at": work.now,
    }
    if repository_id is not None:
        values["id"] = repository_id
    return repositories.add(work.connection, values)


def _role(value: object) -> RepositoryRole:
    try:
        return RepositoryRole(value)  # type: ignore[arg-type]
    except ValueError:
        words = f"A member's role is one of {', '.join(RepositoryRole)}."
        raise invalid("role", words) from None
