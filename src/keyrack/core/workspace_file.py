"""`keyrack apply`: brings a workspace to what a file says, by the same commands as every door; must remove nothing."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keyrack.core import access_keys, grants, people, repositories, servers, system_users, tokens
from keyrack.core.instance import Instance
from keyrack.core.passwords import verify
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Role, Server, User, Workspace
from keyrack.store import keys as key_rows
from keyrack.store import people as people_rows
from keyrack.store import servers as server_rows

Changes = list[str]

FIELDS: dict[str, frozenset[str]] = {
    "": frozenset(("workspace", "projects", "users", "groups", "servers", "repositories", "grants")),
    "workspace": frozenset(("name",)),
    "projects": frozenset(("name", "id")),
    "users": frozenset(("name", "role", "password", "password_env", "policies", "access_keys", "tokens", "id")),
    "groups": frozenset(("name", "members")),
    "access_keys": frozenset(("id", "secret", "secret_env")),
    "tokens": frozenset(("name", "token", "token_env", "scopes")),
    "servers": frozenset(("name", "address", "system_users", "tags", "provider")),
    "repositories": frozenset(("id", "path", "members", "visibility")),
    "members": frozenset(("user", "role")),
    "grants": frozenset(("user", "group", "server", "tag", "system_user")),
}


@dataclass(slots=True)
class _Apply:
    """One run: where it stands and what it changed."""

    instance: Instance
    environment: Mapping[str, str]
    progress: Callable[[str], None]
    actor: Actor
    workspace: Workspace | None = None
    changes: Changes = field(default_factory=list)

    def changed(self, what: str) -> None:
        self.changes.append(what)
        self.progress(what)


def apply(
    instance: Instance,
    text: str,
    environment: Mapping[str, str],
    progress: Callable[[str], None] = lambda line: None,
) -> Changes:
    """Bring a workspace to what the TOML text says; answers what was changed, nothing on a second run.

    environment: where `password_env` and the like are looked up; progress: called with each change as it
    is made. Every name is checked before the first change. Raises Refusal INVALID with where and why.
    """
    try:
        wanted = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _wrong(f"the file is not valid TOML: {error}") from None
    _check(wanted, "")
    run = _Apply(instance, environment, progress, people.keyrack(door="apply"))
    _workspace(run, _text(_table(wanted, "workspace"), "name", "workspace"))
    _projects(run, _tables(wanted, "projects"))
    _users(run, _tables(wanted, "users"))
    _groups(run, _tables(wanted, "groups"))
    _servers(run, _tables(wanted, "servers"))
    _repositories(run, _tables(wanted, "repositories"))
    _grants(run, _tables(wanted, "grants"))
    return run.changes


def _check(value: Any, place: str) -> None:
    known = FIELDS[place]
    for name, inner in value.items():
        if name not in known:
            where = f" in [{place}]" if place else ""
            raise _wrong(f"unknown name {name!r}{where}; known: {', '.join(sorted(known))}")
        if name not in FIELDS or place == "groups":
            continue
        for item in inner if isinstance(inner, list) else [inner]:
            if not isinstance(item, dict):
                raise _wrong(f"{name!r} must hold tables")
            _check(item, name)


def _workspace(run: _Apply, name: str) -> None:
    found = run.instance.database.read(lambda connection: people_rows.workspace_by_name(connection, name))
    if found is None:
        found = people.found_workspace(run.instance, run.actor, name)
        run.changed(f"created workspace {name}")
    run.workspace = found
    run.actor = people.keyrack(found.id, door="apply")


def _projects(run: _Apply, wanted: list[Mapping[str, Any]]) -> None:
    for item in wanted:
        name = _text(item, "name", "projects")
        if people.ensure_project(run.instance, run.actor, name=name, uid=_optional(item, "id")):
            run.changed(f"created project {name}")


def _users(run: _Apply, wanted: list[Mapping[str, Any]]) -> None:
    for item in wanted:
        name = _text(item, "name", "users")
        role = _role(item.get("role", "member"))
        policies = tuple(_texts(item, "policies"))
        password = _secret(run, item, "password")
        user = _user(run, name)
        if user is None:
            user = people.create_user(
                run.instance,
                run.actor,
                name=name,
                role=role,
                policies=policies,
                password=password,
                uid=_optional(item, "id"),
            )
            run.changed(f"created user {name}")
        else:
            _change_user(run, user, role, policies, password)
        for access_key in _tables(item, "access_keys"):
            _access_key(run, user, access_key)
        for token in _tables(item, "tokens"):
            _token(run, user, token)


def _change_user(run: _Apply, user: User, role: Role, policies: tuple[str, ...], password: str | None) -> None:
    if (user.role, user.policies) != (role, policies):
        people.change_rights(run.instance, run.actor, user.id, role=role, policies=policies)
        run.changed(f"changed the rights of {user.name}")
    if password is not None:
        hashed = run.instance.database.read(lambda connection: people_rows.password_hash(connection, user.id))
        if not verify(hashed, password):
            people.change_password(run.instance, run.actor, user.id, password)
            run.changed(f"changed the password of {user.name}")


def _access_key(run: _Apply, user: User, item: Mapping[str, Any]) -> None:
    key_id = _text(item, "id", "access_keys")
    secret = _secret(run, item, "secret")
    if secret is None:
        raise _wrong(f"the access key {key_id} has no secret")
    if access_keys.ensure(run.instance, run.actor, user, key_id=key_id, secret=secret):
        run.changed(f"set access key {key_id} of {user.name}")


def _token(run: _Apply, user: User, item: Mapping[str, Any]) -> None:
    secret = _secret(run, item, "token")
    if secret is None:
        raise _wrong(f"a token of {user.name} has no token")
    name = _text(item, "name", "tokens")
    scopes = tuple(_texts(item, "scopes", ["*"]))
    known = tokens.lookup(run.instance, secret)
    if known is not None and known.user.id == user.id and known.token.scopes == scopes:
        return
    if known is not None:
        raise _wrong(f"the token {name!r} of {user.name} exists already with another owner or other scopes")
    tokens.create(run.instance, run.actor, user, name=name, scopes=scopes, secret=secret)
    run.changed(f"created token {name} of {user.name}")


def _groups(run: _Apply, wanted: list[Mapping[str, Any]]) -> None:
    for item in wanted:
        name = _text(item, "name", "groups")
        members = [_known_user(run, member).id for member in _texts(item, "members")]
        if people.ensure_group(run.instance, run.actor, name=name, user_ids=members):
            run.changed(f"set group {name}")


def _servers(run: _Apply, wanted: list[Mapping[str, Any]]) -> None:
    for item in wanted:
        name = _text(item, "name", "servers")
        tags = _texts(item, "tags")
        server = _server(run, name)
        if server is None:
            server = servers.create(
                run.instance,
                run.actor,
                name=name,
                address=_text(item, "address", "servers"),
                provider=_optional(item, "provider"),
                tags=tags,
            )
            run.changed(f"created server {name}")
        elif set(server.tags) != set(tags):
            servers.retag(run.instance, run.actor, server.id, tags)
            run.changed(f"changed the tags of server {name}")
        for username in _texts(item, "system_users"):
            _system_user(run, server, username)


def _system_user(run: _Apply, server: Server, username: str) -> None:
    def question(connection: Any) -> Any:
        return server_rows.system_user_by_name(connection, server.id, username)

    if run.instance.database.read(question) is None:
        system_users.create(run.instance, run.actor, server.id, username=username)
        run.changed(f"created system user {username} on server {server.name}")


def _repositories(run: _Apply, wanted: list[Mapping[str, Any]]) -> None:
    for item in wanted:
        path = _text(item, "path", "repositories")
        members = {
            _known_user(run, _text(member, "user", "members")).id: member.get("role", "developer")
            for member in _tables(item, "members")
        }
        if repositories.ensure(run.instance, run.actor, path=path, repository_id=item.get("id"), members=members):
            run.changed(f"set repository {path}")


def _grants(run: _Apply, wanted: list[Mapping[str, Any]]) -> None:
    for item in wanted:
        system_user = _text(item, "system_user", "grants")
        user, group = _optional(item, "user"), _optional(item, "group")
        server, tag = _optional(item, "server"), _optional(item, "tag")
        user_id = None if user is None else _known_user(run, user).id
        group_id = None if group is None else _known_group(run, group)
        server_id = None
        if server is not None:
            found = _server(run, server)
            if found is None:
                raise _wrong(f"a grant names the server {server!r}, which there is not")
            server_id = found.id
        place = (user_id, group_id, server_id, tag, system_user)
        if place in _given(run):
            continue
        grants.give(
            run.instance,
            run.actor,
            user_id=user_id,
            group_id=group_id,
            server_id=server_id,
            tag=tag,
            system_user=system_user,
        )
        run.changed(f"let {user or f'group {group}'} log in as {system_user} on {server or f'tag {tag}'}")


def _given(run: _Apply) -> set[tuple[Any, ...]]:
    found = run.instance.database.read(lambda connection: key_rows.find_grants(connection, run.actor.workspace_id))
    return {
        (grant.user_id, grant.group_id, grant.server_id, grant.tag, grant.system_user)
        for grant in found
        if grant.expires_at is None
    }


def _user(run: _Apply, name: str) -> User | None:
    workspace_id = run.actor.workspace_id
    return run.instance.database.read(lambda connection: people_rows.user_by_name(connection, workspace_id, name))


def _known_user(run: _Apply, name: str) -> User:
    user = _user(run, name)
    if user is None:
        raise _wrong(f"the user {name!r} is named but stands nowhere in [[users]] or the workspace")
    return user


def _known_group(run: _Apply, name: str) -> int:
    workspace_id = run.actor.workspace_id
    group_id = run.instance.database.read(lambda connection: people_rows.group_id(connection, workspace_id, name))
    if group_id is None:
        raise _wrong(f"the group {name!r} is named but stands nowhere in [[groups]] or the workspace")
    return group_id


def _server(run: _Apply, name: str) -> Server | None:
    workspace_id = run.actor.workspace_id
    return run.instance.database.read(lambda connection: server_rows.by_name(connection, workspace_id, name))


def _role(value: Any) -> Role:
    try:
        return Role(value)
    except ValueError:
        raise _wrong(f"{value!r} is no role; there are {', '.join(Role)}") from None


def _secret(run: _Apply, item: Mapping[str, Any], name: str) -> str | None:
    variable = _optional(item, f"{name}_env")
    if variable is None:
        return _optional(item, name)
    if variable not in run.environment:
        raise _wrong(f"the environment variable {variable} is not set")
    return run.environment[variable]


def _table(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = value.get(name)
    if not isinstance(table, dict):
        raise _wrong(f"the file lacks [{name}]")
    return table


def _tables(value: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    tables = value.get(name, [])
    if not isinstance(tables, list):
        raise _wrong(f"{name!r} must be a list of tables, [[{name}]]")
    return tables


def _text(value: Mapping[str, Any], name: str, place: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text:
        raise _wrong(f"an entry of {place} lacks {name}")
    return text


def _optional(value: Mapping[str, Any], name: str) -> str | None:
    text = value.get(name)
    if text is not None and not isinstance(text, str):
        raise _wrong(f"{name} must be text")
    return text


def _texts(value: Mapping[str, Any], name: str, default: list[str] | None = None) -> list[str]:
    texts = value.get(name, default or [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _wrong(f"{name} must be a list of texts")
    return texts


def _wrong(message: str) -> Refusal:
    return Refusal(Kind.INVALID, "file-invalid", f"Nothing more was applied: {message}.")
