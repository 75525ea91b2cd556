"""Compares a workspace file's servers with the workspace; must change nothing itself."""

from __future__ import annotations

from collections.abc import Callable

from keyrack.core import validation
from keyrack.core.hosts import host_keys, modes, servers, system_users
from keyrack.core.keys import credentials
from keyrack.core.validation import KEEP
from keyrack.core.workspace.changes import Comparison, Execution
from keyrack.core.workspace.faults import placed, wrong
from keyrack.core.workspace.wanted import WantedCredential, WantedServer
from keyrack.model import ENFORCE, Credential, has_ended
from keyrack.protocol.document_words import KEEP_ALL
from keyrack.protocol.words import count
from keyrack.ssh.names import username_problem
from keyrack.store.workspace_state import ServerState


def compare_server(comparison: Comparison, wanted: WantedServer) -> None:
    """Plan that a server is created, or gets the name, address, tags and system users of the file."""
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
                    # Keyrack creates no account of such a name, so the host must have it.
                    existing=username_problem(name) is not None,
                ),
            )


def _match(comparison: Comparison, wanted: WantedServer) -> ServerState | None:
    """The server that an entry means, by its id, name or former name. Raises Refusal where that is not clear."""
    servers_by_id = comparison.state.servers
    if wanted.id is not None and comparison.state.workspace is None:
        return None  # this file creates the workspace, with the ids that the servers had elsewhere
    if wanted.id is not None and wanted.id not in servers_by_id:
        raise wrong(wanted.place, f"there is no server with the id {wanted.id}; leave id out for a new one")
    named = comparison.servers_named.get(wanted.name, [])
    if wanted.id is not None:
        others = [server for server in named if server.id != wanted.id]
        if others:
            raise wrong(wanted.place, f"the server {others[0].id} has this name already")
        known: ServerState | None = servers_by_id[wanted.id]
    elif len(named) > 1:
        ids = ", ".join(str(server.id) for server in named)
        raise wrong(wanted.place, f"several servers have this name; say which with id, one of {ids}")
    elif named:
        known = named[0]
    else:
        known = _renamed(comparison, wanted)
    if known is not None:
        if known.id in comparison.meant:
            raise wrong(wanted.place, f"another entry means the server {known.id} too")
        comparison.meant.add(known.id)
    return known


def _renamed(comparison: Comparison, wanted: WantedServer) -> ServerState | None:
    """The server that had another name. Raises Refusal where only its address fits, as that may be another machine."""
    named_before = comparison.servers_named.get(wanted.was, []) if wanted.was else []
    if len(named_before) > 1:
        raise wrong(wanted.place, f"several servers have the name {wanted.was!r}; say which with id")
    if named_before:
        return named_before[0]
    for server in comparison.servers_at.get(wanted.address, ()):
        if not comparison.servers_declared & {server.name, server.id}:
            raise wrong(
                wanted.place,
                f"the server {server.name!r} (id {server.id}) has this address; if it was renamed, write "
                f'was = "{server.name}", and if both exist, declare both',
            )
    return None


def _create_server(execution: Execution, wanted: WantedServer) -> None:
    server = servers.create(
        execution.instance,
        execution.actor,
        name=wanted.name,
        address=wanted.address,
        provider=wanted.provider,
        tags=wanted.tags,
        server_id=wanted.id,
    )
    execution.servers[wanted.name] = server.id


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


def compare_server_details(comparison: Comparison, wanted: WantedServer) -> None:
    """Plan what brings a server's mode, credentials and offline policy to what the file says, and its host keys where
    none is known.
    """
    _mode(comparison, wanted)
    if wanted.has_credentials:
        _credentials(comparison, wanted)
    _offline_policy(comparison, wanted)
    _host_keys(comparison, wanted)


def _mode(comparison: Comparison, wanted: WantedServer) -> None:
    known = comparison.matched.get(wanted.name)
    if wanted.mode is not None and wanted.mode != (known.mode if known else ENFORCE):
        comparison.do(
            f"have server {wanted.name} {wanted.mode}",
            lambda execution: modes.set_mode(
                execution.instance, execution.actor, execution.servers[wanted.name], wanted.mode
            ),
        )


def _credentials(comparison: Comparison, wanted: WantedServer) -> None:
    server = comparison.matched.get(wanted.name)
    known_by_label = {one.label: one for one in (comparison.state.credentials.get(server.id, ()) if server else ())}
    for credential in wanted.credentials:
        if has_ended(credential.expires_at, comparison.at):
            continue
        known = known_by_label.pop(credential.label, None)
        if known is not None and _is_same_credential(comparison, credential, known):
            continue
        comparison.check_key(credential.public_key)
        if known is not None:
            words = f"delete SSH key {known.label} on server {wanted.name}, which another one replaces"
            comparison.do(words, _deleting_credential(known))
        words = f"add SSH key {credential.label} for {credential.username} on server {wanted.name}"
        comparison.do(words, _adding_credential(wanted.name, credential))
    for known in known_by_label.values():
        comparison.remove(f"delete SSH key {known.label} on server {wanted.name}", _deleting_credential(known))


def _is_same_credential(comparison: Comparison, wanted: WantedCredential, known: Credential) -> bool:
    fingerprint = validation.parsed_key(comparison.instance, wanted.public_key).fingerprint
    wanted_fields = (wanted.username, fingerprint, wanted.temporary, wanted.expires_at, dict(wanted.restrictions))
    fields = (known.username, known.fingerprint, known.temporary, known.expires_at, dict(known.restrictions))
    return wanted_fields == fields and wanted.break_glass == bool(known.break_glass)


def _adding_credential(server: str, wanted: WantedCredential) -> Callable[[Execution], object]:
    return lambda execution: credentials.add(
        execution.instance,
        execution.actor,
        execution.servers[server],
        label=wanted.label,
        username=wanted.username,
        public_key=wanted.public_key,
        temporary=wanted.temporary,
        expires_at=wanted.expires_at,
        restrictions=wanted.restrictions,
        break_glass=wanted.break_glass,
    )


def _deleting_credential(known: Credential) -> Callable[[Execution], object]:
    return lambda execution: credentials.delete(execution.instance, execution.actor, known.server_id, known.id)


def _offline_policy(comparison: Comparison, wanted: WantedServer) -> None:
    known = comparison.matched.get(wanted.name)
    before = (known.offline_after_seconds, known.offline_then) if known else (0, KEEP_ALL)
    after = (
        before[0] if wanted.offline_after_seconds is None else wanted.offline_after_seconds,
        before[1] if wanted.offline_then is None else wanted.offline_then,
    )
    if before != after:
        comparison.do(
            f"have server {wanted.name} {after[1]} after {after[0]} seconds without the service",
            lambda execution: modes.set_offline_policy(
                execution.instance,
                execution.actor,
                after_seconds=after[0],
                then=after[1],
                server_id=execution.servers[wanted.name],
            ),
        )


def _host_keys(comparison: Comparison, wanted: WantedServer) -> None:
    known = comparison.matched.get(wanted.name)
    if wanted.host_keys and not (known and comparison.state.host_keys.get(known.id)):
        comparison.do(
            f"name {count(len(wanted.host_keys), 'host key')} of server {wanted.name}",
            lambda execution: host_keys.name_first(
                execution.instance, execution.actor, execution.servers[wanted.name], wanted.host_keys
            ),
        )
