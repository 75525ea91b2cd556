"""How far a change has come: which hosts said that they obey it, and when; must never take silence for a yes.

The terms, everywhere: a host *applied* a revision, and with that *acknowledged* what came with it, such as a credential
or a revocation. A *receipt* shows this for one host; a keyed code beside it in the database proves that Keyrack wrote
it (store/sealing/receipts.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from keyrack.core import validation
from keyrack.core.instance import Instance
from keyrack.core.people.actors import system_actor
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor, Event
from keyrack.protocol.words import count
from keyrack.store.audit import events
from keyrack.store.hosts import applied as applied_revisions
from keyrack.store.hosts import servers
from keyrack.store.keys import revocations

MAX_CHECKED = 20_000
"""Only among so many of the newest events is looked for what somebody did just now."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One server: the revision that carries the change, the one that its host has applied, and since when.

    has_host: False where no host was ever enrolled, so that there is nothing to obey and nothing to wait for.

    two_machines: two machines use its host's identity now, so that neither gets documents or is believed.

    acknowledged_at: when the host said so; for an event, when it applied its newest revision.

    at_latest: that revision is a later one than the event's, so that the host may have obeyed earlier.
    """

    server_id: int
    server_name: str
    wanted: int
    applied: int
    acknowledged_at: datetime | None
    two_machines: bool = False
    has_host: bool = True
    at_latest: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left to wait for: the host has said that it obeys the change, or there is no host."""
        # Where two machines use one identity, only one of them has said so.
        return not self.has_host or (self.acknowledged_at is not None and not self.two_machines)

    @property
    def name(self) -> str:
        """Of the server, for people: it says where two machines use its identity."""
        return f"{self.server_name} (two machines use its identity)" if self.two_machines else self.server_name


@dataclass(frozen=True, slots=True)
class Receipts:
    """The receipts of a change, one for each server that it concerns, by name."""

    of: tuple[Receipt, ...]

    @property
    def done(self) -> bool:
        """Whether every host has said that it obeys the change."""
        return all(receipt.done for receipt in self.of)

    @property
    def words(self) -> str:
        """In words: done on 2 of 5 servers; not yet on web-1, web-2, web-3; 4 have no host."""
        waiting = [receipt.name for receipt in self.of if not receipt.done]
        hosts = sum(1 for receipt in self.of if receipt.has_host)
        words = [f"done on {hosts - len(waiting)} of {count(hosts, 'server')}"]
        if waiting:
            words.append(f"not yet on {', '.join(waiting)}")
        without = len(self.of) - hosts
        if without:
            words.append(f"{without} {'has' if without == 1 else 'have'} no host")
        return "; ".join(words)


def of_key(instance: Instance, actor: Actor, fingerprint: str) -> Receipts:
    """Which servers refuse a revoked key by now. Raises Refusal MISSING where it is revoked nowhere, or INVALID."""

    def read(connection: Connection) -> tuple[Receipt, ...]:
        validation.fingerprint(fingerprint)
        return tuple(
            Receipt(
                one.server_id,
                one.server_name,
                one.revision,
                one.applied_revision,
                one.acknowledged_at,
                one.two_machines,
                one.has_host,
            )
            for one in revocations.of_key(connection, actor.workspace_id, fingerprint)
        )

    return _receipts(instance, actor, read, "revocation")


def of_event(instance: Instance, actor: Actor, event_id: int) -> Receipts:
    """Which servers obey what an event of the audit log changed. Raises Refusal MISSING."""

    def read(connection: Connection) -> tuple[Receipt, ...]:
        event = events.get(connection, actor.workspace_id, event_id)
        if event is None:
            raise missing("event")
        kept = _of_event(connection, event)
        if not kept:
            words = "This event changed nothing that a host obeys, so there are no receipts of it."
            raise Refusal(Kind.MISSING, "no-receipts", words)
        return kept

    return _receipts(instance, actor, read, "event")


def of_own_key(instance: Instance, actor: Actor, key_id: int) -> Receipts:
    """Which servers obey what the actor did last to an own key, such as deleting it; every user may ask this.

    key_id: also of a deleted key. No receipts where that was longer ago than MAX_CHECKED events.
    """
    attempt = Attempt(instance, actor, "iam:self", "see how far a key of their own has come", target_kind="user key")
    with attempt:
        if actor.workspace_id is None or actor.user_id is None:
            return Receipts(())
        wanted = (actor.workspace_id, actor.user_id, "user key", key_id, MAX_CHECKED)
        return attempt.read(
            lambda connection: Receipts(
                () if (event := events.newest_of(connection, *wanted)) is None else _of_event(connection, event)
            )
        )


def withdraw(instance: Instance, server_ids: Sequence[int]) -> None:
    """Ask hosts again for receipts that others wrote or deleted in the database, so that no count is wrong."""
    attempt = Attempt(instance, system_actor(), "servers:write", "withdraw receipts", target_kind="server")

    def change(work: Work) -> None:
        altered = applied_revisions.altered(work.connection, server_ids)
        applied_revisions.withdraw(work.connection, altered, work.bump_revisions(altered))
        for server in servers.by_ids(work.connection, altered).values():
            work.record(
                f"Withdrew what was entered or taken away in the database as acknowledged by {server.name}, not by its "
                "host; the host is asked again",
                target_id=server.id,
                server_id=server.id,
                workspace_id=server.workspace_id,
                level="warning",
            )
        work.no_event("somebody else was quicker")

    with attempt:
        attempt.write(change)


def _of_event(connection: Connection, event: Event) -> tuple[Receipt, ...]:
    revisions = event.details.get("revisions")
    if not isinstance(revisions, Mapping):
        return ()
    wanted = {int(server_id): int(revision) for server_id, revision in revisions.items()}
    return of_revisions(connection, event.workspace_id, wanted)


def of_revisions(connection: Connection, workspace_id: int, wanted: Mapping[int, int]) -> tuple[Receipt, ...]:
    """Which servers of a workspace obey a change; wanted: server id to the revision that carries it."""
    receipts = []
    for server in revocations.applied(connection, workspace_id, wanted):
        revision, applied = wanted[server.server_id], server.applied_revision
        at = server.applied_at if applied >= revision else None
        receipts.append(
            Receipt(
                server.server_id,
                server.server_name,
                revision,
                applied,
                at,
                server.two_machines,
                server.has_host,
                at_latest=at is not None and applied > revision,
            )
        )
    return tuple(receipts)


def _receipts(
    instance: Instance, actor: Actor, read: Callable[[Connection], tuple[Receipt, ...]], what: str
) -> Receipts:
    attempt = Attempt(instance, actor, "servers:read", "see how far a change has come", target_kind=what)
    with attempt:
        receipts = attempt.read(read)
        if not receipts:
            raise missing(what)
        return Receipts(receipts)
