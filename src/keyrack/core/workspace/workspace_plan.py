"""What a workspace file would change: one list, made by comparing it with the workspace; must change nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set
from datetime import datetime

from keyrack import policy
from keyrack.core.git import repositories
from keyrack.core.hosts import servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.people import access_keys, tokens, users
from keyrack.core.validation import KEEP
from keyrack.core.workspace.workspace_changes import Comparison, Doing, PlannedChanges, refuse_unknown, some
from keyrack.core.workspace.workspace_grants import compare_grants
from keyrack.core.workspace.workspace_guards import (
    compare_deploy_keys,
    compare_frozen_keys,
    compare_host,
    compare_key_policy,
    compare_revoked_keys,
)
from keyrack.core.workspace.workspace_keys import compare_rules, compare_server, compare_user
from keyrack.core.workspace.workspace_text import (
    WantedRepository,
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
    run = Comparison(instance, wanted, state, prune, reset_secrets, other_passwords, at)
    if state.workspace is None:
        run.do(f"create workspace {wanted.name}", lambda doing: _create_workspace(doing, wanted.name))
    _projects(run)
    settle_key_policy = compare_key_policy(run)
    compare_revoked_keys(run)
    for user in wanted.users:
        with run.faults.noted():
            _user(run, user)
    _rights(run)
    for user in wanted.users:
        with run.faults.noted():
            _proofs(run, user)
        with run.faults.noted(), placed(user.place):
            _refuse_misspelt(run, user)
            compare_user(run, user)
    _groups(run)
    for server in wanted.servers:
        with run.faults.noted():
            _server(run, server)
        with run.faults.noted(), placed(server.place):
            compare_server(run, server)
            compare_host(run, server)
    for rule in wanted.rules:
        if rule.server is not None and rule.server not in run.servers_declared | set(run.servers_named):
            run.faults.add(wrong(rule.place, f"the server {rule.server!r} is named, and there is none"))
    for repository in wanted.repositories:
        with run.faults.noted():
            _repository(run, repository)
        with run.faults.noted(), placed(repository.place):
            compare_deploy_keys(run, repository)
    # What follows names servers, and would find fault with those that are wrong themselves.
    run.faults.refuse()
    compare_grants(run)
    with run.faults.noted(), placed("[[request_rules]]"):
        compare_rules(run)
    compare_frozen_keys(run)
    settle_key_policy()
    run.faults.refuse()
    return run.plan


def _create_workspace(doing: Doing, name: str) -> None:
    workspace = users.create_workspace(doing.instance, doing.actor, name)
    doing.actor = users.system_actor(workspace.id, channel=doing.actor.channel, like=doing.actor)


def _projects(run: Comparison) -> None:
    known = {project.name: project.uid for project in run.state.projects}
    for project in run.wanted.projects:
        if project.name not in known:
            run.do(
                f"create project {project.name}",
                lambda doing, one=project: users.ensure_project(  # type: ignore[misc]
                    doing.instance, doing.actor, name=one.name, uid=one.uid
                ),
            )
        elif project.uid not in (None, known[project.name]):
            words = f"the project has the id {known[project.name]}, which cannot be changed"
            run.faults.add(wrong(project.place, words))


def _refuse_misspelt(run: Comparison, wanted: WantedUser) -> None:
    """Refuse policies and scopes that fit no action and are not kept already, on a dry run too."""
    known = run.state.users.get(wanted.name)
    policy.fitting(wanted.policies, field="policies", held=known.policies if known else ())
    for token in wanted.tokens:
        row = run.state.known_tokens.get(run.instance.key.hash_token(token.secret))
        policy.fitting(token.scopes, field="scopes", held=row.scopes if row else ())


def _user(run: Comparison, wanted: WantedUser) -> None:
    known = run.state.users.get(wanted.name)
    if known is None:

        def create(doing: Doing) -> None:
            doing.users[wanted.name] = users.create_user(
                doing.instance,
                doing.actor,
                name=wanted.name,
                role=wanted.role,
                policies=wanted.policies,
                password=doing.hashed.get(wanted.name, wanted.password),
                uid=wanted.uid,
            )

        run.do(f"create user {wanted.name} as {wanted.role.value}", create)
        return
    if wanted.uid not in (None, known.uid):
        raise wrong(wanted.place, f"the user has the id {known.uid}, which cannot be changed")
    held = run.state.passwords.get(known.id)
    if wanted.password is None or (held is not None and (wanted.name, held) not in run.other_passwords):
        return
    if held is not None and not run.reset_secrets:
        run.plan.noted.append(f"the password of {wanted.name} is not the file's; --reset-secrets sets it")
        return
    words = "set the password of" if held is None else "reset the password of"
    run.do(
        f"{words} {wanted.name}",
        lambda doing: users.change_password(
            doing.instance, doing.actor, known.id, doing.hashed.get(wanted.name, wanted.password or "")
        ),
    )


def _rights(run: Comparison) -> None:
    """Owners first, so that the last one may be made something else."""
    for wanted in sorted(run.wanted.users, key=lambda one: one.role is not Role.OWNER):
        known = run.state.users.get(wanted.name)
        if known is None or (known.role, set(known.policies)) == (wanted.role, set(wanted.policies)):
            continue
        changes = [f"{known.role.value} to {wanted.role.value}"] if known.role is not wanted.role else []
        changes += [f"policy {name} given" for name in wanted.policies if name not in known.policies]
        changes += [f"policy {name} taken" for name in known.policies if name not in wanted.policies]
        run.do(
            f"change the rights of {wanted.name}: {', '.join(changes)}",
            lambda doing, one=wanted, user=known: users.change_rights(  # type: ignore[misc]
                doing.instance, doing.actor, user.id, role=one.role, policies=one.policies
            ),
        )


def _proofs(run: Comparison, wanted: WantedUser) -> None:
    known = run.state.users.get(wanted.name)
    declared = {key_id for key_id, _ in wanted.access_keys}
    for key_id, secret in wanted.access_keys:
        _access_key(run, wanted, known, key_id, secret)
    for key in run.keys_of.get(known.id, ()) if known else ():
        if key.id not in declared and key.details.get(access_keys.DECLARED):
            run.remove(
                f"delete access key {key.id} of {wanted.name}",
                lambda doing, number=key.id: access_keys.delete(doing.instance, doing.actor, number),  # type: ignore[misc]
            )
    live = [row for row in (run.tokens_of.get(known.id, ()) if known else ()) if not _over(run, row)]
    kept = {token.name: run.instance.key.hash_token(token.secret) for token in wanted.tokens}
    for token in wanted.tokens:
        alike = [row for row in live if row.name == token.name and row.secret_hash not in kept.values()]
        _token(run, wanted, known, token, alike)
    for row in live:
        if row.secret_hash in kept.values() or row.name in kept:
            continue
        if wanted.has_tokens:
            run.remove(f"revoke token {row.name} of {wanted.name}, which the file does not name", _revoke(row))
        else:
            # Which file or hand made it is not known; somebody's programs may live by it.
            said_nothing = f"the file says nothing of {wanted.name}'s tokens (tokens = [] revokes)"
            run.plan.noted.append(f"token {row.name} of {wanted.name}; {said_nothing}")


def _access_key(run: Comparison, wanted: WantedUser, known: User | None, key_id: str, secret: str) -> None:
    row = run.state.known_access_keys.get(key_id)
    if row is not None and (known is None or row.user_id != known.id):
        raise wrong(wanted.place, f"the access key id {key_id} is another user's")
    if row is not None and access_keys.secret_is(run.instance, row, secret):
        return
    run.do(
        f"create access key {key_id} of {wanted.name}"
        if row is None
        else f"give access key {key_id} of {wanted.name} another secret",
        lambda doing: access_keys.ensure(
            doing.instance, doing.actor, doing.users[wanted.name], key_id=key_id, secret=secret
        ),
    )


def _over(run: Comparison, row: TokenRow) -> bool:
    return row.revoked_at is not None or has_ended(row.expires_at, run.at)


def _revoke(row: TokenRow) -> Callable[[Doing], object]:
    return lambda doing: tokens.revoke_id(doing.instance, doing.actor, row.id)


def _token(run: Comparison, wanted: WantedUser, known: User | None, token: WantedToken, alike: list[TokenRow]) -> None:
    row = run.state.known_tokens.get(run.instance.key.hash_token(token.secret))
    if row is not None and (known is None or row.user_id != known.id):
        raise wrong(wanted.place, f"the token {token.name!r} is somebody else's already; choose another one")
    ended = has_ended(token.expires_at, run.at)
    if row is not None and _over(run, row):
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
            run.do(f"revoke token {row.name} of {wanted.name}, whose end in the file is past", _revoke(row))
        else:
            _change_token(run, wanted, token, row)
        for old in alike:
            run.remove(f"revoke another token {old.name} of {wanted.name}", _revoke(old))
        return
    if ended:
        return  # its end came before it was ever made
    for old in alike:
        run.do(f"revoke token {old.name} of {wanted.name}, which another one replaces", _revoke(old))
    run.do(
        f"create token {token.name} of {wanted.name}",
        lambda doing: tokens.create(
            doing.instance,
            doing.actor,
            doing.users[wanted.name],
            name=token.name,
            scopes=token.scopes,
            secret=token.secret,
            expires_at=token.expires_at,
        ),
    )


def _change_token(run: Comparison, wanted: WantedUser, token: WantedToken, row: TokenRow) -> None:
    changes = []
    if row.name != token.name:
        changes.append(f"name it {token.name}")
    if set(row.scopes) != set(token.scopes):
        changes.append(f"scopes {', '.join(token.scopes) or 'none'} instead of {', '.join(row.scopes) or 'none'}")
    if row.expires_at != token.expires_at:
        changes.append("no end" if token.expires_at is None else f"end {token.expires_at:%Y-%m-%dT%H:%M:%S%z}")
    if changes:
        run.do(
            f"change token {row.name} of {wanted.name}: {'; '.join(changes)}",
            lambda doing: tokens.change(
                doing.instance,
                doing.actor,
                row.id,
                name=token.name,
                scopes=token.scopes,
                expires_at=token.expires_at,
            ),
        )


def _groups(run: Comparison) -> None:
    for group in run.wanted.groups:
        with run.faults.noted():
            refuse_unknown(group.place, "user", (name for name in group.members if name not in run.people_there))
        number = run.state.groups.get(group.name)
        held = {run.user_names[user_id] for user_id in run.state.members.get(number or 0, ())}
        added = [name for name in group.members if name not in held]
        if number is None or added:
            run.do(
                f"{'create' if number is None else 'change'} group {group.name}: add {some(added) or 'nobody'}",
                lambda doing, one=group: _put_in(doing, one.name, one.members),  # type: ignore[misc]
            )
        gone = sorted(held - set(group.members))
        if gone:
            run.remove(
                f"take {some(gone)} out of group {group.name}",
                lambda doing, one=group: _put_in(doing, one.name, one.members, exactly=True),  # type: ignore[misc]
            )


def _put_in(doing: Doing, name: str, members: Iterable[str], *, exactly: bool = False) -> None:
    user_ids = [doing.users[member].id for member in members]
    users.ensure_group(doing.instance, doing.actor, name=name, user_ids=user_ids, exactly=exactly)
    if name not in doing.groups:
        doing.groups[name] = users.group_id(doing.instance, doing.actor, name)


def _server(run: Comparison, wanted: WantedServer) -> None:
    known = _match(run, wanted)
    if known is None:
        run.do(f"create server {wanted.name} ({wanted.address})", lambda doing: _create_server(doing, wanted))
        accounts = set(servers.FIRST_SYSTEM_USERS)
    else:
        run.matched[wanted.name] = known
        run.plan.servers[wanted.name] = known.id
        _change_server(run, wanted, known)
        accounts = known.accounts
    for account in wanted.accounts:
        if account not in accounts:
            run.do(
                f"create system user {account} on server {wanted.name}",
                lambda doing, name=account: system_users.create(  # type: ignore[misc]
                    doing.instance,
                    doing.actor,
                    doing.servers[wanted.name],
                    username=name,
                    # Of a name that Keyrack gives to no account it makes: one that the host must have.
                    existing=username_problem(name) is not None,
                ),
            )


def _match(run: Comparison, wanted: WantedServer) -> ServerState | None:
    """The server that an entry means: by its id, its name, or the name it had; raises where that is not clear."""
    known = run.state.servers
    if wanted.id is not None and run.state.workspace is None:
        return None  # the workspace is made by this file, with the ids that its servers had elsewhere
    if wanted.id is not None and wanted.id not in known:
        raise wrong(wanted.place, f"there is no server with the id {wanted.id}; leave id out for a new one")
    named = run.servers_named.get(wanted.name, [])
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
        found = _renamed(run, wanted)
    if found is not None:
        if found.id in run.meant:
            raise wrong(wanted.place, f"another entry means the server {found.id} too")
        run.meant.add(found.id)
    return found


def _renamed(run: Comparison, wanted: WantedServer) -> ServerState | None:
    before = run.servers_named.get(wanted.was, []) if wanted.was else []
    if len(before) > 1:
        raise wrong(wanted.place, f"several servers have the name {wanted.was!r}; say which with id")
    if before:
        return before[0]
    for server in run.servers_at.get(wanted.address, ()):
        if not run.servers_declared & {server.name, server.id}:
            raise wrong(
                wanted.place,
                f"the server {server.name!r} (id {server.id}) has this address; if it was renamed, write "
                f'was = "{server.name}", and if both exist, declare both',
            )
    return None


def _create_server(doing: Doing, wanted: WantedServer) -> None:
    made = servers.create(
        doing.instance,
        doing.actor,
        name=wanted.name,
        address=wanted.address,
        provider=wanted.provider,
        tags=wanted.tags,
        server_id=wanted.id,
    )
    doing.servers[wanted.name] = made.id


def _change_server(run: Comparison, wanted: WantedServer, known: ServerState) -> None:
    changes = []
    if known.name != wanted.name:
        changes.append(f"rename it from {known.name}")
    if known.address != wanted.address:
        changes.append(f"address {wanted.address} instead of {known.address}")
    if wanted.has_provider and known.provider != wanted.provider:
        changes.append(f"provider {wanted.provider}")
    if changes:
        run.do(
            f"change server {wanted.name}: {', '.join(changes)}",
            lambda doing: servers.rename(
                doing.instance,
                doing.actor,
                known.id,
                name=wanted.name,
                address=wanted.address,
                provider=wanted.provider if wanted.has_provider else KEEP,
            ),
        )
    more = sorted(set(wanted.tags) - known.tags)
    fewer = sorted(known.tags - set(wanted.tags))
    if more:
        run.do(
            f"tag server {wanted.name}: {', '.join(more)}",
            lambda doing: servers.retag(doing.instance, doing.actor, known.id, known.tags | set(wanted.tags)),
        )
    if fewer:
        run.remove(
            f"take the tags {', '.join(fewer)} from server {wanted.name}",
            lambda doing: servers.retag(doing.instance, doing.actor, known.id, wanted.tags),
        )


def _repository(run: Comparison, wanted: WantedRepository) -> None:
    refuse_unknown(wanted.place, "user", (name for name in wanted.members if name not in run.people_there))
    state = run.state.repositories.get(wanted.path)
    held = {run.user_names[user_id]: role for user_id, role in state.members.items()} if state else {}
    if state is None:
        for other in run.state.known_repositories:
            if other.path == wanted.path:
                raise wrong(wanted.place, "the path is another workspace's")
            if other.id == wanted.id:
                raise wrong(wanted.place, f"the id {wanted.id} is another repository's")
    elif wanted.id not in (None, state.repository.id):
        raise wrong(wanted.place, f"the repository has the id {state.repository.id}, which cannot be changed")
    changed = {name: role for name, role in wanted.members.items() if held.get(name) is not role}
    if state is None or changed:
        roles = ", ".join(f"{name} {role.value}" for name, role in changed.items())
        run.do(
            f"{'create' if state is None else 'change'} repository {wanted.path}: {roles or 'no members'}",
            lambda doing: _set_members(doing, wanted, exactly=False),
        )
    gone = sorted(held.keys() - wanted.members.keys())
    if gone:
        run.remove(
            f"take {some(gone)} out of repository {wanted.path}",
            lambda doing: _set_members(doing, wanted, exactly=True),
        )
    before = (state.repository.visibility, state.repository.protect_default) if state else (0, False)
    after = (
        before[0] if wanted.visibility is None else wanted.visibility,
        before[1] if wanted.protect_default is None else wanted.protect_default,
    )
    if before != after:
        run.do(
            f"change repository {wanted.path}: visibility {after[0]}, protect_default {str(after[1]).lower()}",
            lambda doing: repositories.change_at(
                doing.instance, doing.actor, wanted.path, visibility=after[0], protect_default=after[1]
            ),
        )


def _set_members(doing: Doing, wanted: WantedRepository, *, exactly: bool) -> None:
    repositories.ensure(
        doing.instance,
        doing.actor,
        path=wanted.path,
        repository_id=wanted.id,
        members={doing.users[name].id: role.value for name, role in wanted.members.items()},
        exactly=exactly,
    )
