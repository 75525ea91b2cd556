"""Compares a workspace file's repositories with the workspace; must change nothing itself."""

from __future__ import annotations

from collections.abc import Callable

from keyrack.core import validation
from keyrack.core.git import deploy_keys, repositories
from keyrack.core.workspace.changes import Comparison, Execution, refuse_unknown, shortened
from keyrack.core.workspace.faults import wrong
from keyrack.core.workspace.wanted import WantedDeployKey, WantedRepository
from keyrack.store.git.deploy_keys import DeployKey


def compare_repository(comparison: Comparison, wanted: WantedRepository) -> None:
    """Plan what brings a repository, its members and its protection to what the file says."""
    refuse_unknown(wanted.place, "user", (name for name in wanted.members if name not in comparison.known_people))
    known = comparison.state.repositories.get(wanted.path)
    roles_by_name = {comparison.user_names[user_id]: role for user_id, role in known.members.items()} if known else {}
    if known is None:
        for other in comparison.state.known_repositories:
            if other.path == wanted.path:
                raise wrong(wanted.place, "the path is another workspace's")
            if other.id == wanted.id:
                raise wrong(wanted.place, f"the id {wanted.id} is another repository's")
    elif wanted.id not in (None, known.repository.id):
        raise wrong(wanted.place, f"the repository has the id {known.repository.id}, which cannot be changed")
    changed = {name: role for name, role in wanted.members.items() if roles_by_name.get(name) is not role}
    if known is None or changed:
        new_roles = ", ".join(f"{name} {role.value}" for name, role in changed.items())
        comparison.do(
            f"{'create' if known is None else 'change'} repository {wanted.path}: {new_roles or 'no members'}",
            lambda execution: _set_members(execution, wanted, exactly=False),
        )
    removed = sorted(roles_by_name.keys() - wanted.members.keys())
    if removed:
        comparison.remove(
            f"take {shortened(removed)} out of repository {wanted.path}",
            lambda execution: _set_members(execution, wanted, exactly=True),
        )
    before = (known.repository.visibility, known.repository.protect_default) if known else (0, False)
    after = (
        before[0] if wanted.visibility is None else wanted.visibility,
        before[1] if wanted.protect_default is None else wanted.protect_default,
    )
    if before != after:
        comparison.do(
            f"change repository {wanted.path}: visibility {after[0]}, protect_default {str(after[1]).lower()}",
            lambda execution: repositories.change_at(
                execution.instance, execution.actor, wanted.path, visibility=after[0], protect_default=after[1]
            ),
        )


def compare_deploy_keys(comparison: Comparison, wanted: WantedRepository) -> None:
    """Plan what brings a repository's deploy keys to what the file says."""
    if not wanted.has_deploy_keys:
        return
    repository = comparison.state.repositories.get(wanted.path)
    known_keys = comparison.state.deploy_keys.get(repository.repository.id, ()) if repository else ()
    known_by_fingerprint = {key.fingerprint: key for key in known_keys}
    for key in wanted.deploy_keys:
        fingerprint = validation.parsed_key(comparison.instance, key.public_key).fingerprint
        known = known_by_fingerprint.pop(fingerprint, None)
        if known is not None and (known.title, known.application, known.can_push) == (
            key.title,
            key.application,
            key.can_push,
        ):
            continue
        comparison.check_key(key.public_key)
        if known is not None:
            comparison.do(
                f"delete deploy key {known.title} of {wanted.path}, which is to be another", _deleting_key(known)
            )
        comparison.do(f"add deploy key {key.title} ({fingerprint}) to {wanted.path}", _adding_key(wanted.path, key))
    for known in known_by_fingerprint.values():
        comparison.remove(f"delete deploy key {known.title} of {wanted.path}", _deleting_key(known))


def _set_members(execution: Execution, wanted: WantedRepository, *, exactly: bool) -> None:
    repositories.ensure(
        execution.instance,
        execution.actor,
        path=wanted.path,
        repository_id=wanted.id,
        members={execution.users[name].id: role.value for name, role in wanted.members.items()},
        exactly=exactly,
    )


def _adding_key(path: str, wanted: WantedDeployKey) -> Callable[[Execution], object]:
    return lambda execution: deploy_keys.add(
        execution.instance,
        execution.actor,
        repositories.at(execution.instance, execution.actor, path).id,
        title=wanted.title,
        public_key=wanted.public_key,
        application=wanted.application,
        can_push=wanted.can_push,
    )


def _deleting_key(known: DeployKey) -> Callable[[Execution], object]:
    return lambda execution: deploy_keys.delete(execution.instance, execution.actor, known.repository_id, known.id)
