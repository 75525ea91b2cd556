"""Makes a change only if its target is what the caller has seen, in one transaction; must know no change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from keyrack.core.audit.refusals import Refusals
from keyrack.core.instance import Instance
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor

T = TypeVar("T")


def changed(words: str) -> Refusal:
    """The refusal where the target is not what the caller has seen."""
    return Refusal(Kind.CHANGED, "changed", words)


def guarded(
    instance: Instance,
    actor: Actor,
    action: str,
    holds: Callable[[Instance], bool],
    change: Callable[[Instance], T],
    *,
    words: str | None = None,
) -> T:
    """Make a change if a condition holds, in one transaction, and answer its result.

    action: what the change needs; holds: checks, on the instance that it gets; change: makes the change on that
    instance, with its own events; words: of the refusal, None for the usual ones. Raises Refusal CHANGED, or as change
    does.
    """

    def run(work: Work) -> T:
        work.no_event("the change leaves an event")
        # The change's refusals go into a record of their own, which is dropped; this attempt records them.
        inner = replace(within(work), refusals=Refusals())
        if not holds(inner):
            raise changed(words or "It was changed since it was read; read it again, and decide anew.")
        return change(inner)

    with Attempt(instance, actor, action, "change what was read", target_kind="call") as attempt:
        return attempt.write(run)
