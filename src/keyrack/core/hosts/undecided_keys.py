"""How many unmanaged keys wait for a decision; must import nothing that decides, as lists of hosts load this."""

from __future__ import annotations

from collections.abc import Mapping

from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.model import Actor
from keyrack.store.hosts import unmanaged_keys

NEW = "new"
"""The state of an unmanaged key until somebody decides on it."""


def counts(instance: Instance, actor: Actor) -> Mapping[int, int]:
    """How many unmanaged keys wait for a decision, by server; servers with none are left out."""
    with Attempt(instance, actor, "credentials:read", "count unmanaged keys", target_kind="unmanaged key") as attempt:
        return attempt.read(lambda connection: unmanaged_keys.counts(connection, actor.workspace_id, states=(NEW,)))
