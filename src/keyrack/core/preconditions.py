"""Makes a change only where what it is made on is what its caller saw, in one transaction; must know no change."""

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
    """The refusal where something is not what the caller saw."""
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
    """Make a change where a condition holds, with nothing in between, and answer what it answers.

    action: what the change needs; holds: gets the instance to look at; change: the one to make it on, whose events and
    refusals are its own; words: of the refusal, None for the usual ones. Raises Refusal CHANGED, or as change does.
    """

    def run(work: Work) -> T:
        work.no_event("the change leaves its own")
        # Refusals are this attempt's to record, as the change's own go with the transaction.
        inner = replace(within(work), refusals=Refusals())
        if not holds(inner):
            raise changed(words or "It was changed since it was read; read it again, and decide anew.")
        return change(inner)

    with Attempt(instance, actor, action, "change what was read", target_kind="call") as attempt:
        return attempt.write(run)
