"""A workspace as the file that `keyrack apply` reads; must hold no secret, and change nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from keyrack.core.hosts.ssh_lines import USUAL_PORT
from keyrack.core.instance import Instance
from keyrack.core.keys.access import is_marked_frozen
from keyrack.core.lifetimes import written
from keyrack.core.work import Attempt
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Grant, User, Workspace, has_ended
from keyrack.protocol.document_words import KEEP_ALL
from keyrack.store import workspace_state
from keyrack.store.keys import grants
from keyrack.store.workspace_state import ServerState, State

HEAD = """\
# Written by `keyrack export` at {at}; `keyrack apply` reads it.
# It holds no secret: no password, token, access key or password of an account.
"""


def export(instance: Instance, actor: Actor, workspace: Workspace) -> str:
    """The workspace as TOML: key policy, users, groups, servers and their keys, repositories, grants, rules, revoked
    keys.

    Left out is what opens nothing: what has ended, grants for an account that no server has, and rows that are not as
    Keyrack wrote them. Raises Refusal FORBIDDEN, or TAKEN where two servers have the same name.
    """
    with Attempt(instance, actor, "people:read", "export the workspace", target_kind="workspace") as attempt:
        at = instance.now()
        state = attempt.read(lambda connection: _state(connection, workspace, at))
    names = [server.name for server in state.servers.values()]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None:
        words = f"Several servers are called {twice}; rename all but one first, as grants name servers by name."
        raise Refusal(Kind.TAKEN, "name-ambiguous", words)
    return _text(state, workspace.name, at)


def _state(connection: Connection, workspace: Workspace, at: datetime) -> State:
    state = workspace_state.load(
        connection, workspace.name, token_hashes=(), access_key_ids=(), repository_paths=(), repository_ids=()
    )
    workspace_state.fill_keys(connection, state, at, users_named=list(state.users), servers_named=list(state.servers))
    state.grants = grants.sound_grants(connection, workspace.id)
    return state


def _text(state: State, name: str, at: datetime) -> str:
    granted = [table for table in (_grant(state, grant, at) for grant in state.grants) if table is not None]
    tags = {tag for server in state.servers.values() for tag in server.tags}
    tags_to_come = sorted({str(table["tag"]) for table in granted if table["tag"]} - tags)
    lines = [HEAD.format(at=_value(at)), *_table("[workspace]", {"name": name, "tags": tags_to_come or None})]
    policy = state.key_policy
    if policy is not None and policy.holds and (policy.key_types or policy.rsa_minimum_bits):
        types = list(policy.key_types) or None
        lines += _table("[key_policy]", {"key_types": types, "rsa_minimum_bits": policy.rsa_minimum_bits})
    for project in state.projects:
        lines += _table("[[projects]]", {"name": project.name, "id": project.uid})
    for user in state.users.values():
        lines += _table("[[users]]", _user(state, user))
    by_id = {user.id: user.name for user in state.users.values()}
    for group, number in state.groups.items():
        members = sorted(by_id[user_id] for user_id in state.members[number])
        lines += _table("[[groups]]", {"name": group, "members": members})
    for server in state.servers.values():
        lines += _table("[[servers]]", _server(state, server))
    for path, repository in state.repositories.items():
        parts = repository.repository
        members_of = [{"user": by_id[user_id], "role": role.value} for user_id, role in repository.members.items()]
        fields = {
            "path": path,
            "id": parts.id,
            "visibility": parts.visibility,
            "protect_default": parts.protect_default,
        }
        opened_by = [
            {
                "title": key.title,
                "public_key": key.with_comment,
                "application": key.application or None,
                "can_push": key.can_push or None,
            }
            for key in state.deploy_keys.get(parts.id, ())
        ]
        lines += _table("[[repositories]]", {**fields, "members": members_of, "deploy_keys": opened_by or None})
    # Sorted, so that two exports of the same workspace are equal.
    lines += sorted({"\n".join(_table("[[grants]]", table)) for table in granted})
    for rule in state.rules:
        server_name = state.servers[rule.server_id].name if rule.server_id in state.servers else None
        if rule.server_id is not None and server_name is None:
            continue
        most = None if rule.max_duration is None else written(rule.max_duration)
        fields = {"name": rule.name, "approvers": rule.approvers, "server": server_name, "tag": rule.tag}
        lines += _table("[[request_rules]]", {**fields, "system_user": rule.system_user, "max_duration": most})
    for revoked in state.revoked_keys:
        lines += _table("[[revoked_keys]]", {"fingerprint": revoked.fingerprint, "reason": revoked.reason or None})
    return "\n".join(lines) + "\n"


def _user(state: State, user: User) -> dict[str, Any]:
    sources = [source for source in state.sources if source.user_id == user.id]
    # A file cannot freeze one server: a key frozen on one is exported as frozen everywhere, so that none opens more.
    marks = [server.frozen_at for server in state.servers.values() if server.frozen_at is not None]
    return {
        "name": user.name,
        "id": user.uid,
        "role": user.role.value,
        "kind": user.kind,
        "disabled": user.disabled_at is not None,
        "policies": list(user.policies),
        "keys": [
            {
                "title": key.title,
                "public_key": key.with_comment,
                "expires_at": key.expires_at,
                "frozen": is_marked_frozen(key, marks) or None,
            }
            for key in state.user_keys.get(user.id, ())
        ],
        "key_sources": [{"kind": source.kind, "account": source.account, "url": source.url} for source in sources],
    }


def _server(state: State, server: ServerState) -> dict[str, Any]:
    return {
        "name": server.name,
        "id": server.id,
        "address": server.address,
        "provider": server.provider,
        "tags": sorted(server.tags),
        "system_users": sorted(server.accounts),
        "mode": server.mode,
        "credentials": [
            {
                "label": credential.label,
                "username": credential.username,
                "public_key": credential.with_comment,
                "temporary": credential.temporary or None,
                "expires_at": credential.expires_at,
                "restrictions": dict(credential.restrictions) or None,
                "break_glass": credential.break_glass or None,
                "frozen": (not credential.break_glass and is_marked_frozen(credential, [server.frozen_at])) or None,
            }
            for credential in state.credentials.get(server.id, ())
        ],
        "offline_after_seconds": server.offline_after_seconds or None,
        "offline_then": server.offline_then if server.offline_then != KEEP_ALL else None,
        "host_keys": [
            {"public_key": key.public_key, "port": key.port if key.port != USUAL_PORT else None}
            for key in state.host_keys.get(server.id, ())
            if key.confirmed
        ]
        or None,
    }


def _grant(state: State, grant: Grant, at: datetime) -> dict[str, Any] | None:
    """A grant as the file names it, None for one that opens nothing."""
    if has_ended(grant.expires_at, at):
        return None
    users = {user.id: user.name for user in state.users.values()}
    groups = {number: name for name, number in state.groups.items()}
    places = [
        server
        for server in state.servers.values()
        if grant.all_servers or server.id == grant.server_id or grant.tag in server.tags
    ]
    if places and not grant.all_servers and not any(grant.system_user in server.accounts for server in places):
        return None
    return {
        "user": users.get(grant.user_id or 0),
        "group": groups.get(grant.group_id or 0),
        "server": state.servers[grant.server_id].name if grant.server_id in state.servers else None,
        "tag": grant.tag,
        "all": True if grant.all_servers else None,
        "system_user": grant.system_user,
        "starts_at": None if grant.has_begun(at) else grant.starts_at,
        "expires_at": grant.expires_at,
        "restrictions": dict(grant.restrictions) or None,
        "reason": grant.reason,
        "break_glass": grant.break_glass or None,
    }


def _table(header: str, fields: Mapping[str, Any]) -> Iterable[str]:
    yield header
    for name, value in fields.items():
        if value is not None:
            yield f"{name} = {_value(value)}"
    yield ""


def _value(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        pairs = (f"{_name(name)} = {_value(item)}" for name, item in value.items() if item is not None)
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list | tuple):
        # One table in each line, so that people can read long lists and the differences between two exports.
        if any(isinstance(item, Mapping) for item in value):
            return "[\n" + "".join(f"  {_value(item)},\n" for item in value) + "]"
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, int):
        return str(value)
    # A JSON string is a TOML string, except for the one character that only TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _name(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)
