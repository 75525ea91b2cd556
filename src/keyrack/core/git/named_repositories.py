"""Repositories by path, with members by name; must leave who may do what to repositories.py."""

from __future__ import annotations

from collections.abc import Mapping

from keyrack.core.git import repositories
from keyrack.core.git.repositories import ADD_MEMBERS, CREATE
from keyrack.core.instance import Instance
from keyrack.core.lookups import user_named
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, RepositoryRole
from keyrack.store.git import repositories as rows
from keyrack.store.git.repositories import Repository
from keyrack.store.people import users as user_rows

_KIND = "repository"


def put(instance: Instance, actor: Actor, path: object, members: Mapping[str, object] | None) -> Repository:
    """Create a repository at a path, or set the members of one; members: user name to role, None leaves them.

    A user who creates one becomes its admin. Raises Refusal INVALID, FORBIDDEN, TAKEN for a path of another workspace,
    or MISSING for one that the actor may not see.
    """
    name = repositories.path_of(path)
    wanted = {user: repositories.member_role(role) for user, role in (members or {}).items()}
    known = instance.database.read(lambda connection: rows.by_path(connection, name))
    if known is None or known.workspace_id != actor.workspace_id:
        return _create(instance, actor, name, wanted)
    repository = repositories.get(instance, actor, known.id)
    if members is None:
        return repository
    _, entitled = repositories.reach(instance, actor, repository.id, ADD_MEMBERS)
    aim = "set the members of a repository"
    with Attempt(instance, entitled, ADD_MEMBERS, aim, target_kind=_KIND, target_id=repository.id) as attempt:

        def change(work: Work) -> Repository:
            work.no_event("each member leaves one")
            _set_members(work, actor, repository, wanted)
            return repository

        return attempt.write(change)


def _create(instance: Instance, actor: Actor, path: str, wanted: Mapping[str, RepositoryRole]) -> Repository:
    with Attempt(instance, actor, CREATE, "create a repository", target_kind=_KIND) as attempt:
        if actor.project:
            words = "Your proof of who you are is for one project; a repository at a path of its own is in none."
            raise Refusal(Kind.FORBIDDEN, "scope-foreign", words)

        def change(work: Work) -> Repository:
            work.no_event("ensure() leaves it")
            roles = {} if actor.user_id is None else {actor.user_id: RepositoryRole.ADMIN.value}
            roles |= {
                user_named(work.connection, actor, user, field="members").id: role.value
                for user, role in wanted.items()
            }
            repositories.ensure(within(work), actor, path=path, members=roles)
            repository = rows.by_path(work.connection, path)
            assert repository is not None
            return repository

        return attempt.write(change)


def _set_members(work: Work, actor: Actor, repository: Repository, wanted: Mapping[str, RepositoryRole]) -> None:
    inside = within(work)
    roles = rows.members(work.connection, repository.id)
    users = {user: user_named(work.connection, actor, user, field="members") for user in wanted}
    for name, user in users.items():
        if roles.get(user.id) is not wanted[name]:
            role = wanted[name].value
            repositories.set_member(
                inside, actor, repository.id, user_uid=user.uid, role=role, new=user.id not in roles
            )
    for user_id in roles.keys() - {user.id for user in users.values()}:
        former_member = user_rows.user(work.connection, user_id)
        if former_member is not None:
            repositories.remove_member(inside, actor, repository.id, user_uid=former_member.uid)
