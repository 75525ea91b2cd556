"""What a workspace file says of host keys and offline policies, compared with the workspace; must change nothing."""

from __future__ import annotations

from keyrack.core.hosts import host_keys, modes
from keyrack.core.words import count
from keyrack.core.workspace.changes import Comparison
from keyrack.core.workspace.text import (
    WantedServer,
)


def compare_host(comparison: Comparison, wanted: WantedServer) -> None:
    """Add to the plan what brings an offline policy to what the file says, and host keys where none is known."""
    known = comparison.matched.get(wanted.name)
    before = (known.offline_after_seconds, known.offline_then) if known else (0, "keep")
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
    if wanted.host_keys and not (known and comparison.state.host_keys.get(known.id)):
        comparison.do(
            f"name {count(len(wanted.host_keys), 'host key')} of server {wanted.name}",
            lambda execution: host_keys.know(
                execution.instance, execution.actor, execution.servers[wanted.name], wanted.host_keys
            ),
        )
