"""The plan of a workspace file: a list of changes, from comparing it with the workspace; must change nothing."""

from __future__ import annotations

from collections.abc import Set
from datetime import datetime

from keyrack.core.instance import Instance
from keyrack.core.people import actors, users
from keyrack.core.workspace.changes import Comparison, Execution, PlannedChanges
from keyrack.core.workspace.faults import placed, wrong
from keyrack.core.workspace.grants import compare_grants
from keyrack.core.workspace.key_rules import compare_frozen_keys, compare_key_policy, compare_revoked_keys
from keyrack.core.workspace.repositories import compare_deploy_keys, compare_repository
from keyrack.core.workspace.request_rules import compare_rules, find_unknown_servers
from keyrack.core.workspace.servers import compare_server, compare_server_details
from keyrack.core.workspace.users import (
    compare_access_keys_and_tokens,
    compare_groups,
    compare_rights,
    compare_user,
    compare_user_details,
)
from keyrack.core.workspace.wanted import WorkspaceFile
from keyrack.store.workspace_state import State


def compare(
    instance: Instance,
    wanted: WorkspaceFile,
    state: State,
    *,
    prune: bool,
    reset_secrets: bool,
    other_passwords: Set[tuple[str, str]],
    at: datetime,
) -> PlannedChanges:
    """The plan that brings a workspace to what a file declares. Raises Refusal INVALID for unknown names and other
    faults.

    prune: also take away what the file leaves out of what it declares: members of its groups and repositories, tags of
    its servers, access keys that a file gave its users, tokens of users whose tokens it names, grants of its users,
    groups, servers and tags. Users, groups, servers, accounts and repositories are never removed. reset_secrets: set
    passwords that are not the file's. other_passwords: whose those are, as pairs of name and stored hash, found
    beforehand as that takes too long for a transaction.
    """
    comparison = Comparison(instance, wanted, state, prune, reset_secrets, other_passwords, at)
    if state.workspace is None:
        comparison.do(f"create workspace {wanted.name}", lambda execution: _create_workspace(execution, wanted.name))
    _projects(comparison)
    settle_key_policy = compare_key_policy(comparison)
    compare_revoked_keys(comparison)
    for user in wanted.users:
        with comparison.faults.noted():
            compare_user(comparison, user)
    compare_rights(comparison)
    for user in wanted.users:
        with comparison.faults.noted():
            compare_access_keys_and_tokens(comparison, user)
        with comparison.faults.noted(), placed(user.place):
            compare_user_details(comparison, user)
    compare_groups(comparison)
    for server in wanted.servers:
        with comparison.faults.noted():
            compare_server(comparison, server)
        with comparison.faults.noted(), placed(server.place):
            compare_server_details(comparison, server)
    find_unknown_servers(comparison)
    for repository in wanted.repositories:
        with comparison.faults.noted():
            compare_repository(comparison, repository)
        with comparison.faults.noted(), placed(repository.place):
            compare_deploy_keys(comparison, repository)
    # The rest names servers, and would report the faults of these a second time.
    comparison.faults.refuse()
    compare_grants(comparison)
    with comparison.faults.noted(), placed("[[request_rules]]"):
        compare_rules(comparison)
    compare_frozen_keys(comparison)
    settle_key_policy()
    comparison.faults.refuse()
    return comparison.plan


def _create_workspace(execution: Execution, name: str) -> None:
    workspace = users.create_workspace(execution.instance, execution.actor, name)
    execution.actor = actors.system_actor(workspace.id, channel=execution.actor.channel, like=execution.actor)


def _projects(comparison: Comparison) -> None:
    known = {project.name: project.uid for project in comparison.state.projects}
    for project in comparison.wanted.projects:
        if project.name not in known:
            comparison.do(
                f"create project {project.name}",
                lambda execution, one=project: users.ensure_project(  # type: ignore[misc]
                    execution.instance, execution.actor, name=one.name, uid=one.uid
                ),
            )
        elif project.uid not in (None, known[project.name]):
            words = f"the project has the id {known[project.name]}, which cannot be changed"
            comparison.faults.add(wrong(project.place, words))
