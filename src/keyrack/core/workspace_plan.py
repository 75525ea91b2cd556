"""What a workspace file would change: one list, made by comparing it with the workspace; must change nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from keyrack.core import access_keys, grants, people, repositories, servers, system_users, tokens
from keyrack.core.instance import Instance
from keyrack.core.passwords import verify
from keyrack.core.workspace_text import (
    WantedGrant,
    WantedRepository,
    WantedServer,
    WantedToken,
    WantedUser,
    WorkspaceFile,
    wrong,
)
from keyrack.model import Actor, Grant, Role, User
from keyrack.store.access_keys import AccessKeyRow
from keyrack.store.workspace_state import ServerState, State, TokenRow


@dataclass(slots=True)
class Doing:
    """A plan being carried out: by whom, where, and the ids of what there is by name, also of what was just made."""

    instance: Instance
    actor: Actor
    users: dict[str, User]
    groups: dict[str, int]
    servers: dict[str, int]
    hashed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do, in words that name it."""

    words: str
    run: Callable[[Doing], object]


@dataclass(slots=True)
class Plan:
    """changes: what is done; left: removals that are not done, as nobody asked for them; servers: the ids of those
    that the file means, by its names.
    """

    changes: list[Change] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    servers: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Comparison:
    instance: Instance
    wanted: WorkspaceFile
    state: State
    prune: bool
    reset_secrets: bool
    at: datetime
    plan: Plan = field(default_factory=Plan)
    matched: dict[str, ServerState] = field(default_factory=dict)
    meant: set[int] = field(default_factory=set)
    # What is looked for once an entry, by what it is looked for, so that a big file costs no more than its size.
    user_names: dict[int, str] = field(default_factory=dict)
    people_there: set[str] = field(default_factory=set)
    keys_of: dict[int, list[AccessKeyRow]] = field(default_factory=dict)
    tokens_of: dict[int, list[TokenRow]] = field(default_factory=dict)
    servers_named: dict[str, list[ServerState]] = field(default_factory=dict)
    servers_at: dict[str, list[ServerState]] = field(default_factory=dict)
    servers_declared: set[object] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.user_names = {user.id: name for name, user in self.state.users.items()}
        self.people_there = set(self.state.users) | {user.name for user in self.wanted.users}
        for key in self.state.access_keys:
            self.keys_of.setdefault(key.user_id, []).append(key)
        for token in self.state.tokens:
            self.tokens_of.setdefault(token.user_id, []).append(token)
        for server in self.state.servers.values():
            self.servers_named.setdefault(server.name, []).append(server)
            self.servers_at.setdefault(server.address, []).append(server)
        for wanted in self.wanted.servers:
            self.servers_declared |= {wanted.name, wanted.was, wanted.id}

    def do(self, words: str, run: Callable[[Doing], object]) -> None:
        self.plan.changes.append(Change(words, run))

    def remove(self, words: str, run: Callable[[Doing], object]) -> None:
        if self.prune:
            self.do(words, run)
        else:
            self.plan.left.append(words)


def compare(
    instance: Instance, wanted: WorkspaceFile, state: State, *, prune: bool, reset_secrets: bool, at: datetime
) -> Plan:
    """The plan that brings a workspace to what a file declares. Raises Refusal INVALID for names that lead nowhere.

    prune: also take away what the file leaves out of what it declares: members of its groups and repositories, tags of
    its servers, tokens and access keys of its users, grants of its users, groups, servers and tags. Users, groups,
    servers, accounts and repositories themselves are never removed. reset_secrets: set passwords again that were
    changed since.
    """
    run = _Comparison(instance, wanted, state, prune, reset_secrets, at)
    if state.workspace is None:
        run.do(f"create workspace {wanted.name}", lambda doing: _found(doing, wanted.name))
    _projects(run)
    for user in wanted.users:
        _user(run, user)
    _rights(run)
    for user in wanted.users:
        _proofs(run, user)
    _groups(run)
    for server in wanted.servers:
        _server(run, server)
    for repository in wanted.repositories:
        _repository(run, repository)
    _grants(run)
    return run.plan


def _found(doing: Doing, name: str) -> None:
    workspace = people.found_workspace(doing.instance, doing.actor, name)
    doing.actor = people.keyrack(workspace.id, door=doing.actor.door, like=doing.actor)


def _projects(run: _Comparison) -> None:
    known = {project.name: project.uid for project in run.state.projects}
    for project in run.wanted.projects:
        if project.name not in known:
            run.do(
                f"create project {project.name}",
                lambda doing, one=project: people.ensure_project(  # type: ignore[misc]
                    doing.instance, doing.actor, name=one.name, uid=one.uid
                ),
            )
        elif project.uid not in (None, known[project.name]):
            raise wrong(project.place, f"the project has the id {known[project.name]}, which cannot be changed")


def _user(run: _Comparison, wanted: WantedUser) -> None:
    known = run.state.users.get(wanted.name)
    if known is None:

        def create(doing: Doing) -> None:
            doing.users[wanted.name] = people.create_user(
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
    if wanted.password is None or (held is not None and not (run.reset_secrets and not verify(held, wanted.password))):
        return
    words = "set the password of" if held is None else "reset the password of"
    run.do(
        f"{words} {wanted.name}",
        lambda doing: people.change_password(
            doing.instance, doing.actor, known.id, doing.hashed.get(wanted.name, wanted.password or "")
        ),
    )


def _rights(run: _Comparison) -> None:
    """Owners first, so that the last one may be made something else."""
    for wanted in sorted(run.wanted.users, key=lambda one: one.role is not Role.OWNER):
        known = run.state.users.get(wanted.name)
        if known is None or (known.role, set(known.policies)) == (wanted.role, set(wanted.policies)):
            continue
        told = [f"{known.role.value} to {wanted.role.value}"] if known.role is not wanted.role else []
        told += [f"policy {name} given" for name in wanted.policies if name not in known.policies]
        told += [f"policy {name} taken" for name in known.policies if name not in wanted.policies]
        run.do(
            f"change the rights of {wanted.name}: {', '.join(told)}",
            lambda doing, one=wanted, user=known: people.change_rights(  # type: ignore[misc]
                doing.instance, doing.actor, user.id, role=one.role, policies=one.policies
            ),
        )


def _proofs(run: _Comparison, wanted: WantedUser) -> None:
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
        _token(run, wanted, known, token, [row for row in live if row.name == token.name])
    for row in live:
        if row.secret_hash not in kept.values() and row.name not in kept:
            run.remove(f"revoke token {row.name} of {wanted.name}", _revoke(row))


def _access_key(run: _Comparison, wanted: WantedUser, known: User | None, key_id: str, secret: str) -> None:
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


def _over(run: _Comparison, row: TokenRow) -> bool:
    return row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= run.at)


def _revoke(row: TokenRow) -> Callable[[Doing], object]:
    return lambda doing: tokens.revoke_id(doing.instance, doing.actor, row.id)


def _token(run: _Comparison, wanted: WantedUser, known: User | None, token: WantedToken, alike: list[TokenRow]) -> None:
    row = run.state.known_tokens.get(run.instance.key.hash_token(token.secret))
    if row is not None and (known is None or row.user_id != known.id):
        raise wrong(wanted.place, f"the token {token.name!r} is somebody else's already; choose another one")
    if row is not None and _over(run, row):
        end = row.revoked_at or row.expires_at
        raise wrong(
            wanted.place,
            f"the token {token.name!r} ended at {end:%Y-%m-%dT%H:%M:%SZ}, and an ended token opens nothing again; "
            "choose another one",
        )
    if row is not None:
        if set(row.scopes) != set(token.scopes):
            run.do(
                f"change the scopes of token {token.name} of {wanted.name} from {', '.join(row.scopes) or 'none'} "
                f"to {', '.join(token.scopes) or 'none'}",
                lambda doing: tokens.change_scopes(doing.instance, doing.actor, row.id, scopes=token.scopes),
            )
        return
    if token.expires_at is not None and token.expires_at <= run.at:
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


def _groups(run: _Comparison) -> None:
    for group in run.wanted.groups:
        _refuse_unknown(group.place, "user", (name for name in group.members if name not in run.people_there))
        number = run.state.groups.get(group.name)
        held = {run.user_names[user_id] for user_id in run.state.members.get(number or 0, ())}
        added = [name for name in group.members if name not in held]
        if number is None or added:
            run.do(
                f"{'create' if number is None else 'change'} group {group.name}: add {_some(added) or 'nobody'}",
                lambda doing, one=group: _put_in(doing, one.name, one.members),  # type: ignore[misc]
            )
        gone = sorted(held - set(group.members))
        if gone:
            run.remove(
                f"take {_some(gone)} out of group {group.name}",
                lambda doing, one=group: _put_in(doing, one.name, one.members, exactly=True),  # type: ignore[misc]
            )


def _put_in(doing: Doing, name: str, members: Iterable[str], *, exactly: bool = False) -> None:
    user_ids = [doing.users[member].id for member in members]
    people.ensure_group(doing.instance, doing.actor, name=name, user_ids=user_ids, exactly=exactly)
    if name not in doing.groups:
        doing.groups[name] = people.group_id(doing.instance, doing.actor, name)


def _server(run: _Comparison, wanted: WantedServer) -> None:
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
                    doing.instance, doing.actor, doing.servers[wanted.name], username=name
                ),
            )


def _match(run: _Comparison, wanted: WantedServer) -> ServerState | None:
    """The server that an entry means: by its id, its name, or the name it had; raises where that is not clear."""
    known = run.state.servers
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


def _renamed(run: _Comparison, wanted: WantedServer) -> ServerState | None:
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
    )
    doing.servers[wanted.name] = made.id


def _change_server(run: _Comparison, wanted: WantedServer, known: ServerState) -> None:
    told = []
    if known.name != wanted.name:
        told.append(f"rename it from {known.name}")
    if known.address != wanted.address:
        told.append(f"address {wanted.address} instead of {known.address}")
    if wanted.has_provider and known.provider != wanted.provider:
        told.append(f"provider {wanted.provider}")
    if told:
        run.do(
            f"change server {wanted.name}: {', '.join(told)}",
            lambda doing: servers.rename(
                doing.instance,
                doing.actor,
                known.id,
                name=wanted.name,
                address=wanted.address,
                provider=wanted.provider if wanted.has_provider else servers.KEEP,
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


def _repository(run: _Comparison, wanted: WantedRepository) -> None:
    _refuse_unknown(wanted.place, "user", (name for name in wanted.members if name not in run.people_there))
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
        told = ", ".join(f"{name} {role.value}" for name, role in changed.items())
        run.do(
            f"{'create' if state is None else 'change'} repository {wanted.path}: {told or 'no members'}",
            lambda doing: _set_members(doing, wanted, exactly=False),
        )
    gone = sorted(held.keys() - wanted.members.keys())
    if gone:
        run.remove(
            f"take {_some(gone)} out of repository {wanted.path}",
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


def _grants(run: _Comparison) -> None:
    name = _Names(run)
    by_key: dict[_Key, list[Grant]] = {}
    for grant in run.state.grants:
        if grant.expires_at is None or grant.expires_at > run.at:
            by_key.setdefault(name.of(grant), []).append(grant)
    declared: set[_Key] = set()
    for wanted in run.wanted.grants:
        name.refuse_unknown(wanted)
        if wanted.expires_at is not None and wanted.expires_at <= run.at:
            continue  # it has ended; one in force is a removal below
        key = (
            f"user {wanted.user}" if wanted.user is not None else f"group {wanted.group}",
            f"server {wanted.server}" if wanted.server is not None else f"tag {wanted.tag}",
            wanted.system_user,
        )
        declared.add(key)
        _grant(run, wanted, by_key.get(key, []))
    for key, found in by_key.items():
        if key not in declared and (key[0] in name.subjects or key[1] in name.places):
            for grant in found:
                run.remove(f"take back the login of {key[0]} as {key[2]} on {key[1]}", _take_back(grant))


_Key = tuple[str, str, str]


class _Names:
    """Names of what grants join, as the file has them, and what of it the file declares."""

    def __init__(self, run: _Comparison) -> None:
        wanted, state = run.wanted, run.state
        self._users = {user.id: name for name, user in state.users.items()}
        self._groups = {number: name for name, number in state.groups.items()}
        self._servers = {server.id: server.name for server in state.servers.values()}
        self._servers |= {server.id: name for name, server in run.matched.items()}
        self.subjects = {f"user {user.name}" for user in wanted.users}
        self.subjects |= {f"group {group.name}" for group in wanted.groups}
        self.places = {f"server {server.name}" for server in wanted.servers}
        self.places |= {f"tag {tag}" for server in wanted.servers for tag in server.tags}
        self._known_users = set(state.users) | {user.name for user in wanted.users}
        self._known_groups = set(state.groups) | {group.name for group in wanted.groups}
        # The accounts of each server and of each tag, as they will be.
        self._at: dict[str, set[str]] = {}
        self._twice: set[str] = set()
        moved = {server.id for server in run.matched.values()}
        for server in state.servers.values():
            if server.id not in moved:
                self._note(server.name, server.tags, server.accounts)
        for one in wanted.servers:
            known = run.matched.get(one.name)
            accounts = known.accounts if known else set(servers.FIRST_SYSTEM_USERS)
            tags = set() if known is None or run.prune else known.tags
            self._note(one.name, tags | set(one.tags), accounts | set(one.accounts))

    def _note(self, name: str, tags: Iterable[str], accounts: set[str]) -> None:
        if f"server {name}" in self._at:
            self._twice.add(name)
        for place in (f"server {name}", *(f"tag {tag}" for tag in tags)):
            self._at.setdefault(place, set()).update(accounts)

    def of(self, grant: Grant) -> _Key:
        """Who, where and as whom."""
        if grant.user_id is not None:
            who = f"user {self._users.get(grant.user_id, '?')}"
        else:
            who = f"group {self._groups.get(grant.group_id or 0, '?')}"
        where = f"tag {grant.tag}" if grant.tag else f"server {self._servers.get(grant.server_id or 0, '?')}"
        return who, where, grant.system_user

    def refuse_unknown(self, wanted: WantedGrant) -> None:
        """Refuse a grant that names a user, group, server, tag or account that nobody has."""
        if wanted.user is not None:
            _refuse_unknown(wanted.place, "user", () if wanted.user in self._known_users else (wanted.user,))
        if wanted.group is not None:
            _refuse_unknown(wanted.place, "group", () if wanted.group in self._known_groups else (wanted.group,))
        place = f"server {wanted.server}" if wanted.server is not None else f"tag {wanted.tag}"
        if place not in self._at:
            _refuse_unknown(wanted.place, place.partition(" ")[0], (place.partition(" ")[2],))
        if wanted.server in self._twice:
            raise wrong(wanted.place, f"several servers are called {wanted.server!r}; declare the one that is meant")
        if wanted.system_user not in self._at[place]:
            raise wrong(
                wanted.place,
                f"no server that it is for has the account {wanted.system_user!r}; name it in system_users",
            )


def _grant(run: _Comparison, wanted: WantedGrant, found: list[Grant]) -> None:
    same = [one for one in found if (one.expires_at, dict(one.restrictions)) == _terms(wanted)]
    others = [one for one in found if one not in same]
    end = "" if wanted.expires_at is None else f" until {wanted.expires_at:%Y-%m-%dT%H:%M:%S%z}"
    limits = f" with {', '.join(sorted(wanted.restrictions))}" if wanted.restrictions else ""
    if not same:
        words = "change the login of" if found else "let in"
        run.do(f"{words} {wanted.words}{end}{limits}", lambda doing: _give(doing, wanted))
        for old in others:
            # In place of another end: given anew first, so that nothing leaves the host that is to stay.
            run.do(f"end the former terms of {wanted.words}", _take_back(old))
    else:
        for old in (*same[1:], *others):
            run.remove(f"take back another login of {wanted.words}, on other terms", _take_back(old))


def _terms(wanted: WantedGrant) -> tuple[datetime | None, dict[str, object]]:
    return wanted.expires_at, dict(wanted.restrictions)


def _give(doing: Doing, wanted: WantedGrant) -> None:
    grants.give(
        doing.instance,
        doing.actor,
        user_id=None if wanted.user is None else doing.users[wanted.user].id,
        group_id=None if wanted.group is None else doing.groups[wanted.group],
        server_id=None if wanted.server is None else doing.servers[wanted.server],
        tag=wanted.tag,
        system_user=wanted.system_user,
        expires_at=wanted.expires_at,
        restrictions=wanted.restrictions,
    )


def _take_back(grant: Grant) -> Callable[[Doing], object]:
    return lambda doing: grants.take_back(doing.instance, doing.actor, grant.id)


def _refuse_unknown(place: str, what: str, names: Iterable[str]) -> None:
    for name in names:
        raise wrong(place, f"the {what} {name!r} is named, and there is none, neither in the file nor in the workspace")


def _some(names: Iterable[str]) -> str:
    """Names, the first twenty of many."""
    listed = list(names)
    return ", ".join(listed[:20]) + (f" and {len(listed) - 20} more" if len(listed) > 20 else "")
