"""What a workspace file says of keys, of where they come from and of rules for requests, compared with the workspace;
must change nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from keyrack.core import validation
from keyrack.core.hosts import modes
from keyrack.core.hosts.facts import ENFORCE
from keyrack.core.keys import credentials, key_sources, renewals, requests, user_keys
from keyrack.core.people import named_people
from keyrack.core.workspace.changes import Comparison, Execution
from keyrack.core.workspace.text import WantedCredential, WantedRule, WantedServer, WantedUser, WantedUserKey
from keyrack.model import Credential, UserKey, has_ended
from keyrack.store.keys.requests import RequestRule


def compare_user(comparison: Comparison, wanted: WantedUser) -> None:
    """Add to the plan what brings a user's kind, keys and sources to what the file says, and shuts the user out."""
    known = comparison.state.users.get(wanted.name)
    if wanted.kind is not None and wanted.kind != (known.kind if known else "person"):
        comparison.do(f"note that {wanted.name} is a {wanted.kind}", _put(wanted.name, kind=wanted.kind))
    if wanted.has_keys:
        _user_keys(comparison, wanted)
    if wanted.has_sources:
        _sources(comparison, wanted)
    shut = bool(known and known.disabled_at is not None)
    if wanted.disabled is not None and wanted.disabled != shut:
        verb = "shut out" if wanted.disabled else "let in again"
        comparison.do(f"{verb} {wanted.name}", _put(wanted.name, disabled=wanted.disabled))


def compare_server(comparison: Comparison, wanted: WantedServer) -> None:
    """Add to the plan what brings a server's mode and its own keys to what the file says."""
    known = comparison.matched.get(wanted.name)
    if wanted.mode is not None and wanted.mode != (known.mode if known else ENFORCE):
        comparison.do(
            f"have server {wanted.name} {wanted.mode}",
            lambda execution: modes.set_mode(
                execution.instance, execution.actor, execution.servers[wanted.name], wanted.mode
            ),
        )
    if not wanted.has_credentials:
        return
    credentials = {
        credential.label: credential for credential in (comparison.state.credentials.get(known.id, ()) if known else ())
    }
    for credential in wanted.credentials:
        if has_ended(credential.expires_at, comparison.at):
            continue  # it has ended
        was = credentials.pop(credential.label, None)
        if was is not None and _same(comparison, credential, was):
            continue
        comparison.check_key(credential.public_key)
        if was is not None:
            comparison.do(
                f"delete SSH key {was.label} on server {wanted.name}, which another one replaces", _deleted(was)
            )
        words = f"add SSH key {credential.label} for {credential.username} on server {wanted.name}"
        comparison.do(words, _added(wanted.name, credential))
    for was in credentials.values():
        comparison.remove(f"delete SSH key {was.label} on server {wanted.name}", _deleted(was))


def compare_rules(comparison: Comparison) -> None:
    """Add to the plan what brings the rules of requests to what the file says."""
    held = {rule.name: rule for rule in comparison.state.rules}
    names = {server.id: server.name for server in comparison.state.servers.values()}
    names |= {server.id: name for name, server in comparison.matched.items()}
    for wanted in comparison.wanted.rules:
        was = held.pop(wanted.name, None)
        if was is None or _rule(was, names) != _wanted_rule(wanted):
            comparison.do(f"set the rule {wanted.name} of requests: {wanted.approvers} must approve", _set(wanted))
    for name in held if comparison.wanted.has_rules else ():
        comparison.remove(
            f"delete the rule {name} of requests",
            lambda execution, one=name: requests.delete_rule(execution.instance, execution.actor, one),  # type: ignore[misc]
        )


def _put(name: str, *, kind: str | None = None, disabled: bool | None = None) -> Callable[[Execution], object]:
    return lambda execution: named_people.put(
        execution.instance, execution.actor, name, make=False, kind=kind, disabled=disabled
    )


def _user_keys(comparison: Comparison, wanted: WantedUser) -> None:
    known = comparison.state.users.get(wanted.name)
    keys = {key.fingerprint: key for key in (comparison.state.user_keys.get(known.id, ()) if known else ())}
    for declared in wanted.keys:
        end = declared.expires_at
        key = validation.parsed_key(comparison.instance, declared.public_key)
        there = keys.pop(key.fingerprint, None)
        if there is None:
            comparison.check_key(declared.public_key)
            comparison.do(f"add SSH key {key.fingerprint} of {wanted.name}", _added_key(wanted.name, declared))
        elif end is not None and end != there.expires_at:
            comparison.do(f"give SSH key {key.fingerprint} of {wanted.name} another end", _renewed(there, end))
    for was in keys.values():
        comparison.remove(
            f"delete SSH key {was.fingerprint} of {wanted.name}",
            lambda execution, one=was: user_keys.delete(  # type: ignore[misc]
                execution.instance, execution.actor, one.id, user_id=one.user_id
            ),
        )


def _added_key(user: str, declared: WantedUserKey) -> Callable[[Execution], object]:
    return lambda execution: user_keys.add(
        execution.instance,
        execution.actor,
        title=declared.title,
        public_key=declared.public_key,
        user_id=execution.users[user].id,
        expires_at=declared.expires_at,
    )


def _renewed(was: UserKey, end: datetime) -> Callable[[Execution], object]:
    return lambda execution: renewals.key(execution.instance, execution.actor, was.id, expires_at=end)


def _sources(comparison: Comparison, wanted: WantedUser) -> None:
    known = comparison.state.users.get(wanted.name)
    sources = {one.kind: one for one in comparison.state.sources if known is not None and one.user_id == known.id}
    for source in wanted.sources:
        was = sources.pop(source.kind, None)
        if was is None or was.account != source.account or (source.url is not None and was.url != source.url):
            comparison.do(
                f"take keys of {wanted.name} from {source.account} at {source.url or source.kind}",
                lambda execution, one=source: key_sources.put(  # type: ignore[misc]
                    execution.instance, execution.actor, wanted.name, one.kind, account=one.account, url=one.url
                ),
            )
    for kind in sources:
        comparison.remove(
            f"take keys of {wanted.name} from {sources[kind].account} no more",
            lambda execution, one=kind: key_sources.delete(  # type: ignore[misc]
                execution.instance, execution.actor, wanted.name, one
            ),
        )


def _same(comparison: Comparison, wanted: WantedCredential, was: Credential) -> bool:
    fingerprint = validation.parsed_key(comparison.instance, wanted.public_key).fingerprint
    wanted_fields = (wanted.username, fingerprint, wanted.temporary, wanted.expires_at, dict(wanted.restrictions))
    fields = (was.username, was.fingerprint, was.temporary, was.expires_at, dict(was.restrictions))
    return wanted_fields == fields and wanted.break_glass == bool(was.break_glass)


def _added(server: str, wanted: WantedCredential) -> Callable[[Execution], object]:
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


def _deleted(was: Credential) -> Callable[[Execution], object]:
    return lambda execution: credentials.delete(execution.instance, execution.actor, was.server_id, was.id)


def _set(wanted: WantedRule) -> Callable[[Execution], object]:
    return lambda execution: requests.put_rule(
        execution.instance,
        execution.actor,
        wanted.name,
        approvers=wanted.approvers,
        server=None if wanted.server is None else str(execution.servers[wanted.server]),
        tag=wanted.tag,
        system_user=wanted.system_user,
        longest=wanted.max_duration,
    )


def _rule(rule: RequestRule, names: dict[int, str]) -> tuple[object, ...]:
    server = None if rule.server_id is None else names.get(rule.server_id)
    return rule.approvers, server, rule.tag, rule.system_user, rule.longest


def _wanted_rule(wanted: WantedRule) -> tuple[object, ...]:
    most = None if wanted.max_duration is None else requests.longest_span(wanted.max_duration)
    return wanted.approvers, wanted.server, wanted.tag, wanted.system_user, most
