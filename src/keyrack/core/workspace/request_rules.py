"""Compares a workspace file's rules of requests with the workspace; must change nothing itself."""

from __future__ import annotations

from collections.abc import Callable

from keyrack.core.keys import requests
from keyrack.core.workspace.changes import Comparison, Execution
from keyrack.core.workspace.faults import wrong
from keyrack.core.workspace.wanted import WantedRule
from keyrack.store.keys.requests import RequestRule


def find_unknown_servers(comparison: Comparison) -> None:
    """Collect as faults the rules for servers that are neither in the file nor in the workspace."""
    for rule in comparison.wanted.rules:
        if rule.server is not None and rule.server not in comparison.servers_declared | set(comparison.servers_named):
            comparison.faults.add(wrong(rule.place, f"the server {rule.server!r} is named, and there is none"))


def compare_rules(comparison: Comparison) -> None:
    """Plan what brings the rules of requests to what the file says."""
    known_by_name = {rule.name: rule for rule in comparison.state.rules}
    names = {server.id: server.name for server in comparison.state.servers.values()}
    names |= {server.id: name for name, server in comparison.matched.items()}
    for wanted in comparison.wanted.rules:
        known = known_by_name.pop(wanted.name, None)
        if known is None or _terms_of(known, names) != _terms(wanted):
            comparison.do(
                f"set the rule {wanted.name} of requests: {wanted.approvers} must approve", _setting_rule(wanted)
            )
    for name in known_by_name if comparison.wanted.has_rules else ():
        comparison.remove(
            f"delete the rule {name} of requests",
            lambda execution, one=name: requests.delete_rule(execution.instance, execution.actor, one),  # type: ignore[misc]
        )


def _setting_rule(wanted: WantedRule) -> Callable[[Execution], object]:
    return lambda execution: requests.put_rule(
        execution.instance,
        execution.actor,
        wanted.name,
        approvers=wanted.approvers,
        server=None if wanted.server is None else str(execution.servers[wanted.server]),
        tag=wanted.tag,
        system_user=wanted.system_user,
        max_duration=wanted.max_duration,
    )


def _terms_of(known: RequestRule, names: dict[int, str]) -> tuple[object, ...]:
    server = None if known.server_id is None else names.get(known.server_id)
    return known.approvers, server, known.tag, known.system_user, known.max_duration


def _terms(wanted: WantedRule) -> tuple[object, ...]:
    max_duration = None if wanted.max_duration is None else requests.max_duration_of(wanted.max_duration)
    return wanted.approvers, wanted.server, wanted.tag, wanted.system_user, max_duration
