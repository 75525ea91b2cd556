"""What a workspace file would change: one list, made by comparing it with the workspace; must change nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from datetime import UTC, datetime

from keyrack import policy
from keyrack.core.hosts import servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.people import access_keys, actors, groups, tokens, users
from keyrack.core.validation import KEEP
from keyrack.core.workspace.changes import Comparison, Execution, PlannedChanges, refuse_unknown, some
from keyrack.core.workspace.grants import compare_grants
from keyrack.core.workspace.hosts import compare_host
from keyrack.core.workspace.key_rules import compare_frozen_keys, compare_key_policy, compare_revoked_keys
from keyrack.core.workspace.keys import compare_rules, compare_server, compare_user
from keyrack.core.workspace.repositories import compare_deploy_keys, compare_repository
from keyrack.core.workspace.text import (
    WantedServer,
    WantedToken,
    WantedUser,
    WorkspaceFile,
    placed,
    wrong,
)
from keyrack.model import Role, User, has_ended
from keyrack.ssh.names import username_problem
from keyrack.store.workspace_state import ServerState, State, TokenRow


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
    """The plan that brings a workspace to what a file declares. Raises Refusal INVALID for names that lead nowhere.

    prune: also take away what the file leaves out of what it declares: members of its groups and repositories, tags of
    its servers, access keys that a file gave its users, tokens of users whose tokens it names, grants of its users,
    groups, servers and tags. Users, groups, servers, accounts and repositories themselves are never removed.
    reset_secrets: set passwords again that are not the file's. other_passwords: whose those are, pairs of name and
    hash held; looking takes too long for a transaction.
    """
    comparison = Comparison(instance, wanted, state, prune, reset_secrets, other_passwords, at)
    if state.workspace is None:
        comparison.do(f"create workspace {wanted.name}", lambda execution: _create_workspace(execution, wanted.name))
    _projects(comparison)
    settle_key_policy = compare_key_policy(comparison)
    compare_revoked_keys(comparison)
    for user in wanted.users:
        with comparison.faults.noted():
            _user(comparison, user)
    _rights(comparison)
    for user in wanted.users:
        with comparison.faults.noted():
            _proofs(comparison, user)
        with comparison.faults.noted(), placed(user.place):
            _refuse_misspelt(comparison, user)
            compare_user(comparison, user)
    _groups(comparison)
    for server in wanted.servers:
        with comparison.faults.noted():
            _server(comparison, server)
        with comparison.faults.noted(), placed(server.place):
            compare_server(comparison, server)
            compare_host(comparison, server)
    for rule in wanted.rules:
        if rule.server is not None and rule.server not in comparison.servers_declared | set(comparison.servers_named):
            comparison.faults.add(wrong(rule.place, f"the server {rule.server!r} is named, and there is none"))
    for repository in wanted.repositories:
        with comparison.faults.noted():
            compare_repository(comparison, repository)
        with comparison.faults.noted(), placed(repository.place):
            compare_deploy_keys(comparison, repository)
    # What follows names servers, and would find fault with those that are wrong themselves.
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


def _refuse_misspelt(comparison: Comparison, wanted: WantedUser) -> None:
    """Refuse policies and scopes that fit no action and are not kept already, on a dry run too."""
    known = comparison.state.users.get(wanted.name)
    policy.fitting(wanted.policies, field="policies", held=known.policies if known else ())
    for token in wanted.tokens:
        row = comparison.state.known_tokens.get(comparison.instance.key.hash_token(token.secret))
        policy.fitting(token.scopes, field="scopes", held=row.scopes if row else ())


def _user(comparison: Comparison, wanted: WantedUser) -> None:
    known = comparison.state.users.get(wanted.name)
    if known is None:

        def create(execution: Execution) -> None:
            execution.users[wanted.name] = users.create_user(
                execution.instance,
                execution.actor,
                name=wanted.name,
                role=wanted.role,
                policies=wanted.policies,
                password=execution.hashed.get(wanted.name, wanted.password),
                uid=wanted.uid,
            )

        comparison.do(f"create user {wanted.name} as {wanted.role.value}", create)
        return
    if wanted.uid not in (None, known.uid):
        raise wrong(wanted.place, f"the user has the id {known.uid}, which cannot be changed")
    held = comparison.state.passwords.get(known.id)
    if wanted.password is None or (held is not None and (wanted.name, held) not in comparison.other_passwords):
        return
    if held is not None and not comparison.reset_secrets:
        comparison.plan.noted.append(f"the password of {wanted.name} is not the file's; --reset-secrets sets it")
        return
    words = "set the password of" if held is None else "reset the password of"
    comparison.do(
        f"{words} {wanted.name}",
        lambda execution: users.change_password(
            execution.instance, execution.actor, known.id, execution.hashed.get(wanted.name, wanted.password or "")
        ),
    )


def _rights(comparison: Comparison) -> None:
    """Owners first, so that the last one may be made something else."""
    for wanted in sorted(comparison.wanted.users, key=lambda one: one.role is not Role.OWNER):
        known = comparison.state.users.get(wanted.name)
        if known is None or (known.role, set(known.policies)) == (wanted.role, set(wanted.policies)):
            continue
        changes = [f"{known.role.value} to {wanted.role.value}"] if known.role is not wanted.role else []
        changes += [f"policy {name} given" for name in wanted.policies if name not in known.policies]
        changes += [f"policy {name} taken" for name in known.policies if name not in wanted.policies]
        comparison.do(
            f"change the rights of {wanted.name}: {', '.join(changes)}",
            lambda execution, one=wanted, user=known: users.change_rights(  # type: ignore[misc]
                execution.instance, execution.actor, user.id, role=one.role, policies=one.policies
            ),
        )


def _proofs(comparison: Comparison, wanted: WantedUser) -> None:
    known = comparison.state.users.get(wanted.name)
    declared = {key_id for key_id, _ in wanted.access_keys}
    for key_id, secret in wanted.access_keys:
        _access_key(comparison, wanted, known, key_id, secret)
    for key in comparison.keys_of.get(known.id, ()) if known else ():
        if key.id not in declared and key.details.get(access_keys.DECLARED):
            comparison.remove(
                f"delete access key {key.id} of {wanted.name}",
                lambda execution, number=key.id: access_keys.delete(execution.instance, execution.actor, number),  # type: ignore[misc]
            )
    live = [row for row in (comparison.tokens_of.get(known.id, ()) if known else ()) if not _over(comparison, row)]
    kept = {token.name: comparison.instance.key.hash_token(token.secret) for token in wanted.tokens}
    for token in wanted.tokens:
        alike = [row for row in live if row.name == token.name and row.secret_hash not in kept.values()]
        _token(comparison, wanted, known, token, alike)
    for row in live:
        if row.secret_hash in kept.values() or row.name in kept:
            continue
        if wanted.has_tokens:
            comparison.remove(f"revoke token {row.name} of {wanted.name}, which the file does not name", _revoke(row))
        else:
            # Which file or hand made it is not known; somebody's programs may live by it.
            said_nothing = f"the file says nothing of {wanted.name}'s tokens (tokens = [] revokes)"
            comparison.plan.noted.append(f"token {row.name} of {wanted.name}; {said_nothing}")


def _access_key(comparison: Comparison, wanted: WantedUser, known: User | None, key_id: str, secret: str) -> None:
    row = comparison.state.known_access_keys.get(key_id)
    if row is not None and (known is None or row.user_id != known.id):
        raise wrong(wanted.place, f"the access key id {key_id} is another user's")
    if row is not None and access_keys.secret_is(comparison.instance, row, secret):
        return
    comparison.do(
        f"create access key {key_id} of {wanted.name}"
        if row is None
        else f"give access key {key_id} of {wanted.name} another secret",
        lambda execution: access_keys.ensure(
            execution.instance, execution.actor, execution.users[wanted.name], key_id=key_id, secret=secret
        ),
    )


def _over(comparison: Comparison, row: TokenRow) -> bool:
    return row.revoked_at is not None or has_ended(row.expires_at, comparison.at)


def _revoke(row: TokenRow) -> Callable[[Execution], object]:
    return lambda execution: tokens.revoke_id(execution.instance, execution.actor, row.id)


def _token(
    comparison: Comparison, wanted: WantedUser, known: User | None, token: WantedToken, alike: list[TokenRow]
) -> None:
    row = comparison.state.known_tokens.get(comparison.instance.key.hash_token(token.secret))
    if row is not None and (known is None or row.user_id != known.id):
        raise wrong(wanted.place, f"the token {token.name!r} is somebody else's already; choose another one")
    ended = has_ended(token.expires_at, comparison.at)
    if row is not None and _over(comparison, row):
        if ended:
            return  # as the file says
        end = row.revoked_at or row.expires_at
        raise wrong(
            wanted.place,
            f"the token {token.name!r} ended at {end:%Y-%m-%dT%H:%M:%SZ}, and an ended token opens nothing again; "
            "choose another one",
        )
    if row is not None:
        if ended:
            comparison.do(f"revoke token {row.name} of {wanted.name}, whose end in the file is past", _revoke(row))
        else:
            _change_token(comparison, wanted, token, row)
        for old in alike:
            comparison.remove(f"revoke another token {old.name} of {wanted.name}", _revoke(old))
        return
    if ended:
        return  # its end came before it was ever made
    for old in alike:
        comparison.do(f"revoke token {old.name} of {wanted.name}, which another one replaces", _revoke(old))
    comparison.do(
        f"create token {token.name} of {wanted.name}",
        lambda execution: tokens.create(
            execution.instance,
            execution.actor,
            execution.users[wanted.name],
            name=token.name,
            scopes=token.scopes,
            secret=token.secret,
            expires_at=token.expires_at,
        ),
    )


def _change_token(comparison: Comparison, wanted: WantedUser, token: WantedToken, row: TokenRow) -> None:
    changes = []
    if row.name != token.name:
        changes.append(f"name it {token.name}")
    if set(row.scopes) != set(token.scopes):
        changes.append(f"scopes {', '.join(token.scopes) or 'none'} instead of {', '.join(row.scopes) or 'none'}")
    if row.expires_at != token.expires_at:
        changes.append(
            "no end" if token.expires_at is None else f"end {token.expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
        )
    if changes:
        comparison.do(
            f"change token {row.name} of {wanted.name}: {'; '.join(changes)}",
            lambda execution: tokens.change(
                execution.instance,
                execution.actor,
                row.id,
                name=token.name,
                scopes=token.scopes,
                expires_at=token.expires_at,
            ),
        )


def _groups(comparison: Comparison) -> None:
    for group in comparison.wanted.groups:
        with comparison.faults.noted():
            refuse_unknown(group.place, "user", (name for name in group.members if name not in comparison.people_there))
        number = comparison.state.groups.get(group.name)
        held = {comparison.user_names[user_id] for user_id in comparison.state.members.get(number or 0, ())}
        added = [name for name in group.members if name not in held]
        if number is None or added:
            comparison.do(
                f"{'create' if number is None else 'change'} group {group.name}: add {some(added) or 'nobody'}",
                lambda execution, one=group: _put_in(execution, one.name, one.members),  # type: ignore[misc]
            )
        gone = sorted(held - set(group.members))
        if gone:
            comparison.remove(
                f"take {some(gone)} out of group {group.name}",
                lambda execution, one=group: _put_in(execution, one.name, one.members, exactly=True),  # type: ignore[misc]
            )


def _put_in(execution: Execution, name: str, members: Iterable[str], *, exactly: bool = False) -> None:
    user_ids = [execution.users[member].id for member in members]
    groups.ensure(execution.instance, execution.actor, name=name, user_ids=user_ids, exactly=exactly)
    if name not in execution.groups:
        execution.groups[name] = groups.id_of(execution.instance, execution.actor, name)


def _server(comparison: Comparison, wanted: WantedServer) -> None:
    known = _match(comparison, wanted)
    if known is None or known.name != wanted.name:
        with placed(wanted.place):
            servers.server_name(wanted.name)
    if known is None:
        comparison.do(
            f"create server {wanted.name} ({wanted.address})", lambda execution: _create_server(execution, wanted)
        )
        accounts = set(servers.FIRST_SYSTEM_USERS)
    else:
        comparison.matched[wanted.name] = known
        comparison.plan.servers[wanted.name] = known.id
        _change_server(comparison, wanted, known)
        accounts = known.accounts
    for account in wanted.accounts:
        if account not in accounts:
            comparison.do(
                f"create system user {account} on server {wanted.name}",
                lambda execution, name=account: system_users.create(  # type: ignore[misc]
                    execution.instance,
                    execution.actor,
                    execution.servers[wanted.name],
                    username=name,
                    # Of a name that Keyrack gives to no account it makes: one that the host must have.
                    existing=username_problem(name) is not None,
                ),
            )


def _match(comparison: Comparison, wanted: WantedServer) -> ServerState | None:
    """The server that an entry means: by its id, its name, or the name it had; raises where that is not clear."""
    known = comparison.state.servers
    if wanted.id is not None and comparison.state.workspace is None:
        return None  # the workspace is made by this file, with the ids that its servers had elsewhere
    if wanted.id is not None and wanted.id not in known:
        raise wrong(wanted.place, f"there is no server with the id {wanted.id}; leave id out for a new one")
    named = comparison.servers_named.get(wanted.name, [])
    if wanted.id is not None:
        others = [server for server in named if server.id != wanted.id]
        if others:
            raise wrong(wanted.place, f"the server {others[0].id} has this name already")
        found: ServerState | None = known[wanted.id]
    elif len(named) > 1:
        ids = ", ".join(str(server.id) for server in named)
        raise wrong(wanted.place, f"several servers have this name; say which with id, one of {ids}")
    elif named:
        found = named[0]
    else:
        found = _renamed(comparison, wanted)
    if found is not None:
        if found.id in comparison.meant:
            raise wrong(wanted.place, f"another entry means the server {found.id} too")
        comparison.meant.add(found.id)
    return found


def _renamed(comparison: Comparison, wanted: WantedServer) -> ServerState | None:
    before = comparison.servers_named.get(wanted.was, []) if wanted.was else []
    if len(before) > 1:
        raise wrong(wanted.place, f"several servers have the name {wanted.was!r}; say which with id")
    if before:
        return before[0]
    for server in comparison.servers_at.get(wanted.address, ()):
        if not comparison.servers_declared & {server.name, server.id}:
            raise wrong(
                wanted.place,
                f"the server {server.name!r} (id {server.id}) has this address; if it was renamed, write "
                f'was = "{server.name}", and if both exist, declare both',
            )
    return None


def _create_server(execution: Execution, wanted: WantedServer) -> None:
    made = servers.create(
        execution.instance,
        execution.actor,
        name=wanted.name,
        address=wanted.address,
        provider=wanted.provider,
        tags=wanted.tags,
        server_id=wanted.id,
    )
    execution.servers[wanted.name] = made.id


def _change_server(comparison: Comparison, wanted: WantedServer, known: ServerState) -> None:
    changes = []
    if known.name != wanted.name:
        changes.append(f"rename it from {known.name}")
    if known.address != wanted.address:
        changes.append(f"address {wanted.address} instead of {known.address}")
    if wanted.has_provider and known.provider != wanted.provider:
        changes.append(f"provider {wanted.provider}")
    if changes:
        comparison.do(
            f"change server {wanted.name}: {', '.join(changes)}",
            lambda execution: servers.rename(
                execution.instance,
                execution.actor,
                known.id,
                name=wanted.name,
                address=wanted.address,
                provider=wanted.provider if wanted.has_provider else KEEP,
            ),
        )
    more = sorted(set(wanted.tags) - known.tags)
    fewer = sorted(known.tags - set(wanted.tags))
    if more:
        comparison.do(
            f"tag server {wanted.name}: {', '.join(more)}",
            lambda execution: servers.retag(
                execution.instance, execution.actor, known.id, known.tags | set(wanted.tags)
            ),
        )
    if fewer:
        comparison.remove(
            f"take the tags {', '.join(fewer)} from server {wanted.name}",
            lambda execution: servers.retag(execution.instance, execution.actor, known.id, wanted.tags),
        )
