"""What a change would do to who can log in where: it is made, looked at and undone; must leave no change behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from sqlalchemy import Connection

from keyrack.core.audit.refusals import Refusals
from keyrack.core.instance import Instance
from keyrack.core.keys import who_can
from keyrack.core.keys.access import Reason
from keyrack.core.keys.rehearsal_bounds import MOST_SERVERS
from keyrack.core.keys.who_can import Way
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.model import Actor, Server
from keyrack.store import changes
from keyrack.store.engine.prepared import savepoint
from keyrack.store.hosts import servers
from keyrack.store.sealing import sums

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rehearsed(Generic[T]):
    """What a change would answer and do. gains, loses: ways in that would come and go, on the servers looked at;
    changes: ways in that stay, as they would be, with other restrictions or another end; servers: how many the change
    concerns; unknown: those of which nothing can be said.
    """

    answer: T
    gains: tuple[Way, ...]
    loses: tuple[Way, ...]
    changes: tuple[Way, ...]
    servers: int
    unknown: tuple[str, ...]


class _Done(Exception):
    """The change was made and looked at."""


class _Undo(Exception):
    def __init__(self, rehearsed: Rehearsed[object]) -> None:
        super().__init__()
        self.found = rehearsed


def rehearse(instance: Instance, actor: Actor, change: Callable[[Instance], T]) -> Rehearsed[T]:
    """Make a change within a transaction that is undone, and answer what it would do to who can log in where.

    change: gets the instance to make it on. It takes the right to make the change, and access:read. Raises Refusal as
    the change does, and FORBIDDEN.
    """

    def run(work: Work) -> None:
        work.no_event("it is undone")
        # Refusals are this attempt's to record, as the change's own go with the transaction.
        inner = replace(within(work), refusals=Refusals(), rehearses=True)
        connection = work.connection
        # What was counted of the rows that the change wrote is undone with them, or what stands would not be believed.
        with suppress(_Done), sums.counting(connection), savepoint(connection):
            answer = change(inner)
            concerned = sorted(changes.announced(connection))
            after, unknown = _reasons(instance, connection, actor, concerned[:MOST_SERVERS])
            # Of who or what the change itself makes the name is known only here.
            named_after = who_can.names_of(connection, actor, after.values())
            raise _Done
        before, unknown_before = _reasons(instance, connection, actor, concerned[:MOST_SERVERS])
        gains = [place for name, place in after.items() if name not in before]
        loses = [place for name, place in before.items() if name not in after]
        others = [
            place for name, place in after.items() if name in before and _terms(place[1]) != _terms(before[name][1])
        ]
        named_before = who_can.names_of(connection, actor, loses)
        raise _Undo(
            Rehearsed(
                answer=answer,
                gains=tuple(who_can.ways_of(connection, actor, gains, named_after)),
                loses=tuple(who_can.ways_of(connection, actor, loses, named_before)),
                changes=tuple(who_can.ways_of(connection, actor, others, named_after)),
                servers=len(concerned),
                unknown=tuple(sorted({*unknown, *unknown_before})),
            )
        )

    with Attempt(instance, actor, "access:read", "see what a change would do", target_kind="access") as attempt:
        try:
            attempt.write(run)
        except _Undo as undone:
            return undone.found  # type: ignore[return-value]
    raise RuntimeError("a rehearsal ended without an answer")


def _terms(reason: Reason) -> tuple[object, ...]:
    opened_by = reason.credential or reason.grant
    return reason.expires_at, None if opened_by is None else dict(opened_by.restrictions)


def _reasons(
    instance: Instance, connection: Connection, actor: Actor, server_ids: Iterable[int]
) -> tuple[dict[tuple[str, str, int], tuple[Server, Reason]], list[str]]:
    """What lets in to some servers, by account, key and server, and the servers of which nothing can be said."""
    named = servers.by_ids(connection, server_ids).values()
    own = [one for one in named if one.workspace_id == actor.workspace_id]
    found, unknown = who_can.into(instance, connection, own)
    by_place = {(reason.username, reason.fingerprint, server.id): (server, reason) for server, reason in found}
    return by_place, [server.name for server, _ in unknown]
