"""Git repositories and who may read or write them; must not touch Git itself."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core import cursors, lookups, quotas, validation
from keyrack.core.instance import Instance
from keyrack.core.lookups import user_with_uid
from keyrack.core.people.actors import system_actor
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, Page, Project, RepositoryRole
from keyrack.store.git import deploy_keys, repositories
from keyrack.store.git.repositories import Member, Repository
from keyrack.store.people import users, workspaces

CREATE = "codeartsrepo:repository:createRepository"
READ = "codeartsrepo:repository:getRepository"
CHANGE = "codeartsrepo:repository:setRepository"
DELETE = "codeartsrepo:repository:deleteRepository"
ADD_MEMBERS = "codeartsrepo:repository:createMembers"
REMOVE_MEMBERS = "codeartsrepo:repository:deleteMembers"

VISIBILITIES = (0, 10, 20)
LONGEST_PATH = 255
# Two to five parts; none starts with a dot or a dash, so that no part is a hidden file or an option.
PATH = re.compile(rf"(?=.{{3,{LONGEST_PATH}}}\Z)[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*){{1,4}}")


def path_of(value: object) -> str:
    """A repository's path, e.g. acme/site. Raises Refusal INVALID."""
    if isinstance(value, str) and _is_path(value):
        return value
    if isinstance(value, str) and len(value) > LONGEST_PATH:
        raise invalid("path", f"This is longer than {LONGEST_PATH} characters.")
    raise invalid(
        "path",
        "A repository's path is GROUP/NAME: letters, digits, dots, dashes and underscores, "
        "no part starting with a dot or dash, and no dot, .git or .lock at the end.",
    )


def _is_path(text: str) -> bool:
    return PATH.fullmatch(text) is not None and not text.endswith((".git", ".lock", "."))


def visibility_of(value: object) -> int:
    """0, 10 or 20, as whole number: 10.0 is refused. Raises Refusal INVALID."""
    if type(value) is not int or value not in VISIBILITIES:
        raise invalid("visibility", "This takes 0, 10 or 20.")
    return value


def reach(instance: Instance, actor: Actor, repository: int | str, action: str) -> tuple[Repository, Actor]:
    """A repository of the actor's workspace, by id or uid, and the actor with the rights of a member of it.

    action: one of policy.ACTIONS, which is to be done with it. 1. A repository in another project than the actor's
    proof is for counts as missing. 2. What a member may do is policy.REPOSITORY_ROLE_ACTIONS; it adds to the actor's
    policies for this repository alone, and a token's scopes still bound both. 3. One named by id that the actor may
    neither see nor do this with counts as missing, so that ids show nothing.

    Raises Refusal MISSING for actors who may do something with some repository, FORBIDDEN for all others.
    """

    def question(connection: Connection) -> tuple[Repository | None, RepositoryRole | None, bool]:
        if isinstance(repository, int):
            known = repositories.get(connection, actor.workspace_id, repository)
        else:
            known = repositories.by_uid(connection, actor.workspace_id, repository)
        if known is not None and not in_project(connection, actor, known.project_id):  # 1
            known = None
        if actor.user_id is None:
            return known, None, False
        role = None if known is None else repositories.role_of(connection, known.id, actor.user_id)
        return known, role, role is not None or repositories.is_member_of_any(connection, actor.user_id)

    known, role, member = instance.database.read(question)
    if known is not None:
        granted = policy.lent(role, known.visibility)  # 2
        entitled = replace(actor, policies=(*actor.policies, *granted), repository_id=known.id)
        # 3. Ids can be guessed. A uid is random, so whoever knows one knows the repository.
        by_uid = isinstance(repository, str)
        if by_uid or policy.may(entitled, READ) is None or policy.may(entitled, action) is None:
            return known, entitled
    if _works_with_repositories(actor, member=member):
        raise missing("repository")
    with Attempt(instance, actor, action, "reach a repository", target_kind="repository"):
        raise missing("repository")


def _works_with_repositories(actor: Actor, *, member: bool) -> bool:
    """Whether an actor may do anything with some repository; member: the user is a member of one."""
    if member and policy.may(replace(actor, policies=(*actor.policies, READ)), READ) is None:
        return True
    return any(policy.may(actor, action) is None for action in policy.ACTIONS if action.startswith("codeartsrepo:"))


def create(
    instance: Instance, actor: Actor, *, name: object, project_uid: object, visibility: object = 0
) -> Repository:
    """Create a repository in a project of the workspace, at PROJECT-ID/NAME; its creator becomes its admin.

    visibility: 0 private, 10 readable in the workspace, 20 readable by everybody. Raises Refusal INVALID, LIMIT, or
    TAKEN where the project has a repository of that name.
    """
    with Attempt(instance, actor, CREATE, "create a repository", target_kind="repository") as attempt:
        if not isinstance(name, str) or "/" in name:
            raise invalid("name", "A repository's name is one text without a slash.")
        level = visibility_of(visibility)
        project = _project(attempt, actor, project_uid)
        path = f"{project.uid}/{name}"
        if not _is_path(path):
            raise invalid("name", _name_problem(name, longest=LONGEST_PATH - len(f"{project.uid}/")))

        def change(work: Work) -> Repository:
            if repositories.by_path(work.connection, path) is not None:
                raise Refusal(Kind.TAKEN, "path-taken", "The project has a repository of that name.", field="name")
            number = _add(work, path, None, project_id=project.id, visibility=level)
            if actor.user_id is not None:
                repositories.set_member(work.connection, number, actor.user_id, RepositoryRole.ADMIN, work.now)
            work.record(f"Created repository {path}", target_id=number, details={"path": path})
            return _own(work, number)

        return attempt.write(change)


def _name_problem(name: str, *, longest: int) -> str:
    if len(name) > longest:
        return f"This is longer than {longest} characters, which leave room for the project before it."
    return (
        "A repository's name has letters, digits, dots, dashes and underscores, does not start with a dot or dash, "
        "and does not end with a dot, .git or .lock."
    )


def find(
    instance: Instance,
    actor: Actor,
    *,
    project_uid: str | None = None,
    search: str = "",
    offset: int = 0,
    limit: int = 20,
    cursor: str | None = None,
) -> Page[Repository]:
    """A page of the repositories that the actor may see, newest first.

    search: part of the path, in any case; cursor: of the page before, "" for the first one; takes the place of offset.
    Raises Refusal MISSING for a project that is not the workspace's.
    """
    everything = policy.may(actor, READ) is None
    # Everybody may list repositories of which they are members, or that the workspace may read; scopes still bound it.
    entitled = replace(actor, policies=(*actor.policies, READ))
    with Attempt(instance, entitled, READ, "list repositories", target_kind="repository") as attempt:
        after = cursors.place(cursor, int)

        def question(connection: Connection) -> Page[Repository] | None:
            project = None if project_uid is None else workspaces.project_by_uid(connection, project_uid)
            if project_uid is not None and (project is None or project.workspace_id != actor.workspace_id):
                return None
            if project is not None and not in_project(connection, actor, project.id):
                return None
            bound = workspaces.project_by_uid(connection, actor.project) if actor.project else None
            return repositories.find(
                connection,
                actor.workspace_id,
                project_id=project.id if project else None,
                # 0 is no project's id: a proof for a deleted project reaches into none.
                bound_to=None if not actor.project else bound.id if bound else 0,
                seen_by=None if everything else actor.user_id or 0,
                search=search,
                offset=offset,
                limit=limit,
                after=after,
            )

        page = attempt.read(question)
        if page is None:
            raise missing("project")
        return page


def get(instance: Instance, actor: Actor, repository: int | str) -> Repository:
    """One repository by id or uid. Raises Refusal MISSING or FORBIDDEN."""
    own, entitled = reach(instance, actor, repository, READ)
    with Attempt(instance, entitled, READ, "see a repository", target_kind="repository", target_id=own.id):
        return own


def may_change(instance: Instance, actor: Actor, repository: int | str) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not change the repository, as change() does."""
    target, entitled = reach(instance, actor, repository, CHANGE)
    with _changing(instance, entitled, target):
        return


def may_delete(instance: Instance, actor: Actor, repository: int | str) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not delete the repository, as delete() does."""
    target, entitled = reach(instance, actor, repository, DELETE)
    with _deleting(instance, entitled, target):
        return


def delete(instance: Instance, actor: Actor, repository: int | str) -> Repository:
    """Delete a repository with its members and deploy keys, and answer it as it was.

    Raises Refusal MISSING or FORBIDDEN.
    """
    own, entitled = reach(instance, actor, repository, DELETE)
    with _deleting(instance, entitled, own) as attempt:

        def change(work: Work) -> Repository:
            deleted = _own(work, own.id)
            for key in deploy_keys.of_repository(work.connection, deleted.id):
                deploy_keys.remove(work.connection, key)
            repositories.remove(work.connection, deleted.id)
            work.record(f"Deleted repository {deleted.path}", target_id=deleted.id, level="warning")
            return deleted

        return attempt.write(change)


def members(
    instance: Instance,
    actor: Actor,
    repository: int | str,
    *,
    search: str = "",
    writers: bool = False,
    offset: int = 0,
    limit: int = 20,
) -> Page[Member]:
    """A page of a repository's members by name; search: part of the name; writers: only those who may push."""
    own, entitled = reach(instance, actor, repository, READ)
    with Attempt(
        instance, entitled, READ, "list a repository's members", target_kind="repository", target_id=own.id
    ) as attempt:
        return attempt.read(
            lambda connection: repositories.find_members(
                connection, own.id, search=search, writers=writers, offset=offset, limit=limit
            )
        )


def may_add_members(instance: Instance, actor: Actor, repository: int | str) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not add members, before any of a list is added."""
    target, entitled = reach(instance, actor, repository, ADD_MEMBERS)
    with Attempt(
        instance, entitled, ADD_MEMBERS, "add members to a repository", target_kind="repository", target_id=target.id
    ):
        return


def set_member(
    instance: Instance, actor: Actor, repository: int | str, *, user_uid: str, role: object, new: bool
) -> Member:
    """Give a user of the workspace a role in a repository; new: the user must not be a member yet, else must be.

    Raises Refusal MISSING for repository, user or member, INVALID for the role, TAKEN where a new one is a member,
    FORBIDDEN.
    """
    target, entitled = reach(instance, actor, repository, ADD_MEMBERS)
    with Attempt(
        instance, entitled, ADD_MEMBERS, "set a member of a repository", target_kind="repository", target_id=target.id
    ) as attempt:
        wanted = member_role(role)

        def change(work: Work) -> Member:
            user = user_with_uid(work.connection, actor, user_uid)
            before = repositories.role_of(work.connection, target.id, user.id)
            if new and before is not None:
                raise Refusal(Kind.TAKEN, "member-already", f"{user.name} is a member already.", field="user")
            if not new and before is None:
                raise missing("member")
            _refuse_exceeding(entitled, user.id, before, wanted)
            repositories.set_member(work.connection, _own(work, target.id).id, user.id, wanted, work.now)
            work.record(
                f"Made {user.name} {wanted.value} of repository {target.path}",
                target_id=target.id,
                details={"user": user.name, "role": wanted.value},
            )
            return repositories.find_members(work.connection, target.id, user_id=user.id, offset=0, limit=1).items[0]

        return attempt.write(change)


def remove_member(instance: Instance, actor: Actor, repository: int | str, *, user_uid: str) -> None:
    """Remove a member from a repository. Raises Refusal MISSING for repository or member, or FORBIDDEN."""
    target, entitled = reach(instance, actor, repository, REMOVE_MEMBERS)
    with Attempt(
        instance,
        entitled,
        REMOVE_MEMBERS,
        "remove a member of a repository",
        target_kind="repository",
        target_id=target.id,
    ) as attempt:

        def change(work: Work) -> None:
            user = users.user_by_uid(work.connection, user_uid)
            if user is None or repositories.role_of(work.connection, target.id, user.id) is None:
                raise missing("member")
            repositories.remove_member(work.connection, target.id, user.id)
            work.record(
                f"Took {user.name} out of repository {target.path}", target_id=target.id, details={"user": user.name}
            )

        attempt.write(change)


def ensure(
    instance: Instance,
    actor: Actor,
    *,
    path: str,
    repository_id: int | None = None,
    members: Mapping[int, str],
    exactly: bool = True,
) -> bool:
    """Create a repository with these members, or change its members; False where all is so already.

    path: GROUP/NAME; repository_id: the id that a new one had elsewhere, or None; members: user id to role; exactly:
    others are removed, otherwise they stay. Raises Refusal INVALID, TAKEN, LIMIT or FORBIDDEN.
    """
    name = path_of(path)
    wanted = {user_id: member_role(role) for user_id, role in members.items()}

    def current(connection: Connection) -> tuple[Repository | None, dict[int, RepositoryRole]]:
        known = repositories.by_path(connection, name)
        return known, {} if known is None else repositories.members(connection, known.id)

    known, held = instance.database.read(current)
    as_wanted = held == (wanted if exactly else {**held, **wanted})
    if known is not None and known.workspace_id == actor.workspace_id and as_wanted:
        return False
    with Attempt(instance, actor, CREATE, "set up a repository", target_kind="repository") as attempt:

        def change(work: Work) -> bool:
            repository, held = current(work.connection)
            if repository is not None and repository.workspace_id != actor.workspace_id:
                raise Refusal(Kind.TAKEN, "path-taken", f"The path {name} is taken.", field="path")
            number = repository.id if repository is not None else _add(work, name, repository_id)
            names = users.user_names(work.connection, wanted.keys() | held.keys())
            changes = []
            for user_id, role in wanted.items():
                if held.get(user_id) is not role:
                    repositories.set_member(work.connection, number, user_id, role, work.now)
                    changes.append(f"{names.get(user_id, user_id)} {role.value}")
            for user_id in held.keys() - wanted.keys() if exactly else ():
                repositories.remove_member(work.connection, number, user_id)
                changes.append(f"{names.get(user_id, user_id)} taken out")
            doing = "Created" if repository is None else "Changed the members of"
            work.record(f"{doing} repository {name}: {', '.join(changes[:100]) or 'no members'}", target_id=number)
            return True

        return attempt.write(change)


def change_at(
    instance: Instance, actor: Actor, path: str, *, visibility: object = None, protect_default: object = None
) -> Repository:
    """As change, for the repository at a path."""
    number = at(instance, actor, path).id
    return change(instance, actor, number, visibility=visibility, protect_default=protect_default)


def at(instance: Instance, actor: Actor, path: str) -> Repository:
    """The repository at a path, as get. Raises Refusal MISSING or FORBIDDEN."""
    known = instance.database.read(lambda connection: repositories.by_path(connection, path))
    return get(instance, actor, 0 if known is None else known.id)


def change(
    instance: Instance,
    actor: Actor,
    repository: int | str,
    *,
    visibility: object = None,
    protect_default: object = None,
) -> Repository:
    """Change who may read a repository, or whether its default branch is protected; None leaves either as it is.

    Raises Refusal MISSING, FORBIDDEN or INVALID.
    """
    own, entitled = reach(instance, actor, repository, CHANGE)
    with _changing(instance, entitled, own) as attempt:
        wanted: dict[str, object] = {}
        if visibility is not None:
            wanted["visibility"] = visibility_of(visibility)
        if protect_default is not None:
            if not isinstance(protect_default, bool):
                raise invalid("protect_default", "protect_default takes true or false.")
            wanted["protect_default"] = protect_default
        if not wanted:
            raise invalid("protect_default", "Send a visibility or protect_default.")

        def change(work: Work) -> Repository:
            current = _own(work, own.id)
            values = {column: value for column, value in wanted.items() if value != getattr(current, column)}
            if not values:
                work.no_event("it is as wanted already")
                return current
            repositories.change(work.connection, current.id, values)
            changes = ", ".join(f"{column} {value}" for column, value in values.items())
            work.record(f"Set of repository {current.path}: {changes}", target_id=current.id, level="warning")
            return _own(work, current.id)

        return attempt.write(change)


def take_first_branch(instance: Instance, repository: Repository, branch: str, *, may_push_protected: bool) -> bool:
    """Make the first branch that was pushed to a repository its default, as Git does; answers whether it is.

    may_push_protected: whether the pusher may push to a protected branch; otherwise a protected default stays, or it
    would no longer be protected. Raises Refusal MISSING.
    """
    keyrack = system_actor(repository.workspace_id, channel="git")
    aim = "take the first branch as the default"
    with Attempt(instance, keyrack, CHANGE, aim, target_kind="repository", target_id=repository.id) as attempt:

        def note(work: Work) -> bool:
            current = _own(work, repository.id)
            if current.protect_default and not may_push_protected:
                work.no_event("a protected default branch stays, and nothing changes")
                return False
            repositories.change(work.connection, current.id, {"default_branch": branch})
            work.record(
                f"{branch} is the default branch of {repository.path}, as it came first", target_id=repository.id
            )
            return True

        return attempt.write(note)


def in_project(connection: Connection, actor: Actor, project_id: int | None) -> bool:
    """Whether an actor's proof reaches into a project, None for what belongs to no project."""
    if not actor.project or project_id is None:
        return True
    bound = workspaces.project_by_uid(connection, actor.project)
    return bound is not None and bound.id == project_id


def _project(attempt: Attempt, actor: Actor, uid: object) -> Project:
    text = validation.text(uid, field="project")
    project = attempt.read(lambda connection: workspaces.project_by_uid(connection, text))
    if project is None or project.workspace_id != actor.workspace_id or actor.project not in ("", project.uid):
        raise invalid("project", "There is no such project.", "project-missing")
    return project


def _add(
    work: Work, path: str, repository_id: int | None, *, project_id: int | None = None, visibility: int = 0
) -> int:
    values = {
        "workspace_id": work.actor.workspace_id,
        "project_id": project_id,
        "uid": secrets.token_hex(16),
        "path": path,
        "visibility": visibility,
        "default_branch": "main",
        "protect_default": False,
        "created_by": work.actor.user_id,
        "created_at": work.now,
    }
    quotas.refuse_more(work, "repository")
    if repository_id is not None:
        values["id"] = repository_id
    return repositories.add(work.connection, values)


def _refuse_exceeding(entitled: Actor, user_id: int, before: RepositoryRole | None, wanted: RepositoryRole) -> None:
    """Refuse a role that allows what the actor may not do, or by which actors would raise themselves."""
    more = policy.lacking(entitled, policy.actions(None, policy.REPOSITORY_ROLE_ACTIONS[wanted]))
    order = tuple(RepositoryRole)
    raised = before is None or order.index(wanted) > order.index(before)
    if user_id == entitled.user_id and raised and wanted is not RepositoryRole.VIEWER:
        more |= policy.lacking(entitled, ("git:push",))
    if more:
        words = f"You cannot give the role {wanted.value}, as you may not do all that it allows yourself."
        raise Refusal(Kind.FORBIDDEN, "exceeds-own-rights", words)


def _changing(instance: Instance, entitled: Actor, repository: Repository) -> Attempt:
    return Attempt(instance, entitled, CHANGE, "change a repository", target_kind="repository", target_id=repository.id)


def _deleting(instance: Instance, entitled: Actor, repository: Repository) -> Attempt:
    return Attempt(instance, entitled, DELETE, "delete a repository", target_kind="repository", target_id=repository.id)


def _own(work: Work, repository_id: int) -> Repository:
    return lookups.repository(work.connection, work.actor, repository_id)


def member_role(value: object) -> RepositoryRole:
    """A member's role, parsed. Raises Refusal INVALID."""
    try:
        return RepositoryRole(value)  # type: ignore[arg-type]
    except ValueError:
        words = f"A member's role is one of {', '.join(RepositoryRole)}."
        raise invalid("role", words) from None
