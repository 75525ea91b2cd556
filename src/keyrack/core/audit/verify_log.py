"""Verifies the audit log in the database; must repair nothing.

Only the first altered record is named, as later differences may follow from it. Each event has a seal, and so has each
place in the chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection

from keyrack.core import schema_check
from keyrack.core.audit import chain
from keyrack.core.audit.verify_export import KnownCheckpoints, OnProgress, Verification, unsigned
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.model import Actor
from keyrack.protocol import audit_tree
from keyrack.protocol.audit_tree import CheckpointProblem
from keyrack.store.audit import audit_log
from keyrack.store.audit.audit_log import ChainedEvent, SignedCheckpoint
from keyrack.store.sealing import event_seals


def verify(
    instance: Instance,
    actor: Actor,
    on_progress: OnProgress = lambda count: None,
    witnesses: Sequence[SignedCheckpoint] = (),
) -> Verification:
    """Verify the log in the database; on_progress: called with how many records are checked.

    1. No trigger or rule of others is on the tables. 2. The stored checkpoints are signed and in order, and 3. so are
    those of witnesses. 4. Each place is there, sealed, and matches its event. 5. The tree matches each checkpoint at
    its size, and 6. the stored hashes of its parts. 7. Nothing is missing at the end, or waits without reason.

    witnesses: checkpoints kept elsewhere that the log must go on from.
    """
    with Attempt(instance, actor, "instance:tidy", "verify the audit log", target_kind="event") as attempt:
        if in_the_way := schema_check.in_the_way(instance):  # 1
            return Verification(0, 0, schema_check.in_verifying(in_the_way))
        by_instance = partial(instance.key.signed, namespace=audit_tree.NAMESPACE)
        if problem := attempt.read(lambda connection: _checkpoint_problem(instance, connection)):  # 2
            return Verification(0, 0, problem)
        if problem := unsigned(witnesses, by_instance):  # 3
            return Verification(0, 0, problem)
        marks = KnownCheckpoints(attempt.read(audit_log.checkpoints), witnesses)
        deleted = attempt.read(deleted_events)
        tree = audit_tree.Frontier()
        parts = audit_log.TreeParts()
        pruned = 0
        while True:
            first = tree.size
            places = attempt.read(lambda connection, first=first: list(audit_log.places(connection, first)))  # type: ignore[misc]
            for place in places:
                if problem := _problem_at(place, tree.size, deleted):  # 4
                    return Verification(tree.size, pruned, problem)
                pruned += place.record is None
                tree.add(place.hash)
                parts.add(place.hash)
                if problem := marks.problem(tree):  # 5
                    return Verification(tree.size, pruned, problem)
            if not attempt.read(parts.fit):  # 6
                return Verification(tree.size, pruned, f"hashes of parts of the first {tree.size} records were altered")
            on_progress(tree.size)
            if not places:
                break
        # 7
        problem, new = attempt.read(lambda connection: _problem_at_the_end(instance, connection, tree.size))
        return Verification(tree.size, pruned, marks.missing(tree) or problem, new)


def _problem_at_the_end(instance: Instance, connection: Connection, size: int) -> tuple[str, int]:
    """What is wrong beside the places themselves, of which there are `size`; and how many events have no place yet."""
    nodes = audit_log.count_nodes(connection)
    newest = audit_log.newest(connection)
    signed = 0 if newest is None else chain.read_signed(instance, newest).size
    if signed < size:
        return f"the checkpoints over the records from place {signed} on are missing", 0
    if nodes > audit_log.nodes_of(signed):
        return "hashes of parts of the log were inserted", 0
    if copied := event_seals.copied(connection):
        return f"event {copied} was inserted: it is a copy of another", 0
    new = audit_log.unchained(connection, everything=True)
    last = audit_log.newest_event(connection)
    begun = event_seals.begun(connection)
    for event in new:
        # An event that was committed late gets its place within a second; one that others insert gets none.
        number = event["id"]
        is_old = number < last - audit_log.BACK_ON_POSTGRESQL or (number < last and not _is_recent(instance, event))
        if is_old or not event_seals.holds(connection, event, begun):
            return f"event {number} was inserted: it has no place in the chain", 0
    return "", len(new)


def _is_recent(instance: Instance, event: Mapping[str, Any]) -> bool:
    return bool((instance.now() - event["at"]).total_seconds() < chain.KEPT_EVERY.total_seconds())


def _checkpoint_problem(instance: Instance, connection: Connection) -> str:
    """What is wrong with the stored checkpoints, "" for nothing."""
    checkpoints = audit_log.checkpoints(connection)
    try:
        read = [chain.read_signed(instance, one) for one in checkpoints]
    except CheckpointProblem as problem:
        return str(problem)
    if [one.size for one in read] != audit_log.checkpoint_sizes(connection) or any(
        one.size >= other.size or one.access > other.access for one, other in pairwise(read)
    ):
        return "the checkpoints are not in order"
    if not checkpoints and not audit_log.is_empty(connection):
        return "all checkpoints are missing"
    return ""


@dataclass(frozen=True, slots=True)
class DeletedEvents:
    """Events that were deleted for their age, as sound events in the chain say.

    until: all up to this id; out_of_order: of events that were deleted later, up to which id, and the first and last id
    of each run of events that stayed.
    """

    until: int
    out_of_order: Sequence[tuple[int, Sequence[tuple[int, int]]]]

    def __contains__(self, event_id: int) -> bool:
        """Whether an event was deleted for its age."""
        return event_id <= self.until or any(
            event_id <= until and not any(first <= event_id <= last for first, last in kept)
            for until, kept in self.out_of_order
        )


def deleted_events(connection: Connection) -> DeletedEvents:
    """The events that the chain says were deleted for their age."""
    whole, out_of_order = 0, []
    for place in audit_log.places_of(connection, "instance:tidy"):
        if place.record is not None and place.sound and audit_tree.leaf(audit_log.text_of(place.record)) == place.hash:
            details = place.record["details"]
            until, kept = int(details.get("events_until") or 0), details.get("events_kept")
            if kept:
                out_of_order.append((until, [(first, last) for first, last in kept]))
            else:
                whole = max(whole, until)
    return DeletedEvents(whole, out_of_order)


def _problem_at(place: ChainedEvent, expected: int, deleted: DeletedEvents) -> str:
    """What is wrong with a place in the chain, "" for nothing."""
    if place.position != expected:
        return f"the record at place {expected} is missing"
    if not place.sound:
        return f"the record at place {expected}, event {place.event_id}, was put in another's place or inserted"
    if place.record is None:
        return "" if place.event_id in deleted else f"event {place.event_id}, at place {expected}, is missing"
    if audit_tree.leaf(audit_log.text_of(place.record)) != place.hash:
        return f"event {place.event_id}, at place {expected}, was altered"
    return ""
