"""How far a change has come: which hosts said that they obey it, and when; must never take silence for a yes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.errors import missing
from keyrack.model import Actor
from keyrack.store import events, revocations


@dataclass(frozen=True, slots=True)
class Receipt:
    """One server: the revision that carries the change, the one its host said it obeys, and since when.

    two_machines: whether two go by its host's identity now, so that neither is handed anything or believed.

    at: when the host said so; for an event the time of the last revision it applied, which may be a later one.
    """

    server_id: int
    server_name: str
    wanted: int
    applied: int
    at: datetime | None
    two_machines: bool = False

    @property
    def done(self) -> bool:
        """Whether the host has said that it obeys the change."""
        # A copy of the host has said nothing: whoever spoke, spoke for one machine.
        return self.at is not None and not self.two_machines

    @property
    def name(self) -> str:
        """Of the server, with what a person must know of it."""
        return f"{self.server_name} (two machines use its identity)" if self.two_machines else self.server_name


@dataclass(frozen=True, slots=True)
class Receipts:
    """All servers that a change concerns, by name."""

    of: tuple[Receipt, ...]

    @property
    def done(self) -> bool:
        """Whether every host has said that it obeys the change."""
        return all(receipt.done for receipt in self.of)

    @property
    def words(self) -> str:
        """Such as: done on 2 of 5 servers; not yet on web-1, web-2, web-3."""
        waiting = [receipt.name for receipt in self.of if not receipt.done]
        words = f"done on {len(self.of) - len(waiting)} of {len(self.of)} servers"
        return f"{words}; not yet on {', '.join(waiting)}" if waiting else words


def of_key(instance: Instance, actor: Actor, fingerprint: str) -> Receipts:
    """Which servers refuse a revoked key by now. Raises Refusal MISSING when it is revoked nowhere."""

    def read(connection: Connection) -> tuple[Receipt, ...]:
        return tuple(
            Receipt(one.server_id, one.server_name, one.revision, one.applied_revision, one.confirmed_at, one.copied)
            for one in revocations.of_key(connection, actor.workspace_id, fingerprint)
        )

    return _receipts(instance, actor, read, "revocation")


def of_event(instance: Instance, actor: Actor, event_id: int) -> Receipts:
    """Which servers obey what an event of the audit log changed. Raises Refusal MISSING."""

    def read(connection: Connection) -> tuple[Receipt, ...]:
        event = events.get(connection, actor.workspace_id, event_id)
        return () if event is None else _of_revisions(connection, actor, event.details.get("revisions"))

    return _receipts(instance, actor, read, "event")


def _of_revisions(connection: Connection, actor: Actor, revisions: object) -> tuple[Receipt, ...]:
    if not isinstance(revisions, Mapping):
        return ()
    wanted = {int(server_id): int(revision) for server_id, revision in revisions.items()}
    found = []
    for server in revocations.applied(connection, actor.workspace_id, wanted):
        revision = wanted[server.server_id]
        at = server.applied_at if server.applied_revision >= revision else None
        applied = server.applied_revision
        found.append(Receipt(server.server_id, server.server_name, revision, applied, at, server.copied))
    return tuple(found)


def _receipts(
    instance: Instance, actor: Actor, read: Callable[[Connection], tuple[Receipt, ...]], what: str
) -> Receipts:
    attempt = Attempt(instance, actor, "servers:read", "see how far a change has come", target_kind=what)
    with attempt:
        found = attempt.read(read)
        if not found:
            raise missing(what)
        return Receipts(found)
