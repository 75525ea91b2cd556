"""What a change would do to who can log in where: makes it, compares, and undoes it; must leave no change behind."""

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
from keyrack.core.keys.rehearsal_bounds import MAX_SERVERS
from keyrack.core.keys.who_can import Way
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.model import Actor, Server
from keyrack.store import changes
from keyrack.store.engine.execute import savepoint
from keyrack.store.hosts import servers
from keyrack.store.sealing import sums

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Rehearsed(Generic[T]):
    """What a change would answer and do.

    gains, loses: ways in that would come and go; changes: ways in that stay with other restrictions or another end; all
    only on the servers that were compared, at most MAX_SERVERS; servers: how many the change concerns; unknown: the
    names of those about which nothing can be said.
    """

    answer: T
    gains: tuple[Way, ...]
    loses: tuple[Way, ...]
    changes: tuple[Way, ...]
    servers: int
    unknown: tuple[str, ...]


class _Compared(Exception):
    """The change was made and its effect read: now it is undone."""


class _Made(Exception):
    """The change was made without a refusal: now it is undone."""


class _Undone(Exception):
    def __init__(self, rehearsed: Rehearsed[object]) -> None:
        super().__init__()
        self.rehearsed = rehearsed


def rehearse(instance: Instance, actor: Actor, change: Callable[[Instance], T]) -> Rehearsed[T]:
    """Make a change in a transaction that is undone, and answer what it would do to who can log in where.

    change: gets the instance to make it on. This takes the right to make the change, and access:read. Raises Refusal as
    the change does, and FORBIDDEN.
    """

    def run(work: Work) -> None:
        work.no_event("it is undone")
        # The change's refusals go into a record of their own, which is dropped; this attempt records them.
        inner = replace(within(work), refusals=Refusals(), rehearses=True)
        connection = work.connection
        # Counts of the rows that the change writes are undone with them, or the remaining rows would look altered.
        with suppress(_Compared), sums.counting(connection), savepoint(connection):
            answer = change(inner)
            concerned = sorted(changes.announced(connection))
            after, unknown = _reasons(instance, connection, actor, concerned[:MAX_SERVERS])
            # Users and groups that the change itself makes have names only here.
            named_after = who_can.names_of(connection, actor, after.values())
            raise _Compared
        before, unknown_before = _reasons(instance, connection, actor, concerned[:MAX_SERVERS])
        gains = [place for name, place in after.items() if name not in before]
        loses = [place for name, place in before.items() if name not in after]
        changed = [
            place for name, place in after.items() if name in before and _terms(place[1]) != _terms(before[name][1])
        ]
        named_before = who_can.names_of(connection, actor, loses)
        raise _Undone(
            Rehearsed(
                answer=answer,
                gains=tuple(who_can.ways_of(connection, actor, gains, named_after)),
                loses=tuple(who_can.ways_of(connection, actor, loses, named_before)),
                changes=tuple(who_can.ways_of(connection, actor, changed, named_after)),
                servers=len(concerned),
                unknown=tuple(sorted({*unknown, *unknown_before})),
            )
        )

    with Attempt(instance, actor, "access:read", "see what a change would do", target_kind="access") as attempt:
        try:
            attempt.write(run)
        except _Undone as undone:
            return undone.rehearsed  # type: ignore[return-value]
    raise RuntimeError("a rehearsal ended without an answer")


def try_out(instance: Instance, actor: Actor, action: str, change: Callable[[Instance], object]) -> None:
    """Make a change in a transaction that is undone, and raise the Refusal that it would raise.

    action: what the change needs; change: gets the instance to make it on, and does nothing beside its transaction.
    """

    def run(work: Work) -> None:
        work.no_event("it is undone")
        change(replace(within(work), refusals=Refusals(), rehearses=True))
        raise _Made

    with Attempt(instance, actor, action, "make a change", target_kind="call") as attempt, suppress(_Made):
        attempt.write(run)


def _terms(reason: Reason) -> tuple[object, ...]:
    opened_by = reason.credential or reason.grant
    return reason.expires_at, None if opened_by is None else dict(opened_by.restrictions)


def _reasons(
    instance: Instance, connection: Connection, actor: Actor, server_ids: Iterable[int]
) -> tuple[dict[tuple[str, str, int], tuple[Server, Reason]], list[str]]:
    """All reasons on some servers by account, key and server id, and the names of servers that cannot be judged."""
    named = servers.by_ids(connection, server_ids).values()
    own = [one for one in named if one.workspace_id == actor.workspace_id]
    reasons, unknown = who_can.into(instance, connection, own)
    by_place = {(reason.username, reason.fingerprint, server.id): (server, reason) for server, reason in reasons}
    return by_place, [server.name for server, _ in unknown]
