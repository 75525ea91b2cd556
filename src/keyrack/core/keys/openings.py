"""Says where a key lets in, and what still does when it was taken away somewhere; must change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.model import Actor
from keyrack.store.keys import openings
from keyrack.store.keys.openings import MAX, Opening

__all__ = ["MAX", "of_key", "shown", "words"]


def of_key(instance: Instance, actor: Actor, fingerprint: str) -> tuple[Opening, ...]:
    """Where a key lets in as itself, whoever's it is: as SSH keys of servers and in files of hosts, at most MAX of
    each. Raises Refusal FORBIDDEN.
    """
    with Attempt(instance, actor, "credentials:read", "see where a key lets in", target_kind="key") as attempt:
        now = instance.now()
        return attempt.read(
            lambda connection: openings.of_workspace(
                connection, workspace_id=actor.workspace_id, fingerprint=fingerprint, at=now
            )
        )


def words(still: Sequence[Opening], *, everywhere: bool = False) -> str:
    """The end of a sentence about a key that was taken away, "" where nothing else lets it in.

    everywhere: the openings are of several accounts, and name them.
    """
    if not still:
        return ""
    return "; still opened by: " + ", ".join(_one(opening, everywhere=everywhere) for opening in still)


def shown(still: Sequence[Opening]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [{"kind": opening.kind, "id": opening.id, "name": opening.name} for opening in still]


def _one(opening: Opening, *, everywhere: bool) -> str:
    what = {"credential": "SSH key {}", "grant": "a grant for {}", "file": "the file {}"}[opening.kind]
    where = f" ({opening.username} on {opening.server_name})" if everywhere else ""
    return what.format(opening.name) + where
