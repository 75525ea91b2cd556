"""Chains events, signs checkpoints and proves what the log was; must change no event, and make no write wait.

Invariant 9: the audit log is sealed. Within a second of its commit an event has its place in a tree of hashes
(protocol/audit_tree.py), and a checkpoint over all of them is signed with the instance's key. Each checkpoint goes on
from the last signed one, whatever older events in the database say now. Checkpoints go to hosts with their documents,
which refuse one that does not go on from the last they saw; to a file; and to webhooks.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from keyrack.core.audit import alarms
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.logs import logger
from keyrack.model import Actor
from keyrack.protocol import audit_tree
from keyrack.protocol.audit_tree import Checkpoint, CheckpointProblem
from keyrack.store.audit import audit_log, events
from keyrack.store.audit.audit_log import SignedCheckpoint
from keyrack.store.engine.prepared import Row
from keyrack.store.sealing import access_tree, event_seals

log = logger("keyrack")

KEPT_EVERY = timedelta(hours=1)
"""One checkpoint for each such time is kept, to find where a log was rewritten."""
MAX_PROOFS = 10_000
MAX_NAMED = 5
BROKEN = "Alarm: the chain of the audit log is broken, and nothing is added to it:"


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """A proof that an event is in the log of a checkpoint.

    position: its place; record: the text that was hashed; path: the hashes beside it in the tree, from its leaf up.
    """

    position: int
    record: str
    path: tuple[bytes, ...]
    checkpoint: SignedCheckpoint


def extend(instance: Instance, listeners: Sequence[Callable[[SignedCheckpoint], None]] = ()) -> bool:
    """Chain new events and sign a checkpoint over all; answers whether there may be more at once.

    listeners: called with each new checkpoint once it is stored. Raises DatabaseUnavailable.
    """
    state = instance.database.read(_chain_state)
    size = _size(state.checkpoint)
    before = _size(instance.checkpoints.newest)
    if before > size:
        # A restore by Keyrack is recorded by itself; this was done past Keyrack.
        _alarm(
            instance, f"Alarm: the audit log had {before} records and has {size} now: its end was deleted, or put back"
        )
        instance.checkpoints.newest = None
    if state.places > size:
        _alarm(instance, f"{BROKEN} it has {state.places} places, and its last checkpoint is over {size}")
        return False
    if state.foreign:
        numbers = ", ".join(str(one) for one in state.foreign[:MAX_NAMED])
        more = " and others" if len(state.foreign) > MAX_NAMED else ""
        _alarm(instance, f"Alarm: event {numbers}{more} was entered in the database, not by Keyrack, and gets no place")
    if not state.waiting:
        if state.checkpoint is not None:
            instance.checkpoints.newest = state.checkpoint
        return False

    def change(connection: Connection) -> tuple[SignedCheckpoint | None, int, str]:
        # The events that were read and checked above still wait, unless another process has given them places since.
        is_current = audit_log.places_end(connection) == state.places
        waiting = state.waiting if is_current else _chain_state(connection).waiting
        if not waiting:
            return audit_log.newest(connection), 0, ""
        try:
            last, tree = _last_checkpoint(instance, connection)
        except CheckpointProblem as problem:
            return None, 0, str(problem)
        audit_log.chain(connection, tree, waiting)
        now = instance.now()
        checkpoint = Checkpoint(tree.size, tree.root(), access_tree.counter(connection), int(now.timestamp()))
        text = checkpoint.encode()
        signed = SignedCheckpoint(text, instance.key.sign(text, audit_tree.NAMESPACE))
        is_close = last is not None and last.at // KEPT_EVERY.seconds == checkpoint.at // KEPT_EVERY.seconds
        instead_of = last.size if last is not None and is_close else None
        audit_log.put_checkpoint(connection, checkpoint.size, signed, now, instead_of=instead_of)
        return signed, len(waiting), ""

    try:
        signed, count, problem = instance.database.write(change, workspace_lock=0)  # one process at a time
    except IntegrityError:
        signed, count, problem = None, 0, "what comes next was entered there already"
    if problem:
        _alarm(instance, f"{BROKEN} {problem}")
    if signed is not None:
        instance.checkpoints.newest = signed
        if count:
            for listener in listeners:
                listener(signed)
    return count == audit_log.BATCH_SIZE


def _size(checkpoint: SignedCheckpoint | None) -> int:
    """How many records a checkpoint is over, 0 for none."""
    return 0 if checkpoint is None else audit_tree.read(checkpoint.text).size


@dataclass(frozen=True, slots=True)
class _ChainState:
    """How far the chain is.

    waiting: Keyrack's events that have no place yet; foreign: ids of events that Keyrack did not write, which get none;
    places: how many there are; checkpoint: the last one.
    """

    waiting: tuple[Row, ...]
    foreign: tuple[int, ...]
    places: int
    checkpoint: SignedCheckpoint | None


def _chain_state(connection: Connection) -> _ChainState:
    unchained = audit_log.unchained(connection)
    begun = event_seals.begun(connection) if unchained else 0
    waiting, foreign = [], []
    for event in unchained:
        if event_seals.holds(connection, event, begun):
            waiting.append(event)
        else:
            foreign.append(int(event["id"]))
    places = audit_log.places_end(
        connection
    )  # read before the checkpoint: another process may just be making one over more places
    return _ChainState(tuple(waiting), tuple(foreign), places, audit_log.newest(connection))


def _last_checkpoint(instance: Instance, connection: Connection) -> tuple[Checkpoint | None, audit_tree.Frontier]:
    """The last checkpoint and the tree that it is over. Raises CheckpointProblem where these do not match."""
    newest = audit_log.newest(connection)
    if newest is None:
        if not audit_log.is_empty(connection):
            raise CheckpointProblem("its checkpoints were deleted in the database")
        return None, audit_tree.Frontier()
    checkpoint = read_signed(instance, newest)
    tree = audit_tree.frontier(audit_log.whole(connection), checkpoint.size)
    if tree.root() != checkpoint.root:
        raise CheckpointProblem(f"its first {checkpoint.size} records are not those of the last checkpoint")
    return checkpoint, tree


def read_signed(instance: Instance, signed: SignedCheckpoint) -> Checkpoint:
    """A checkpoint, parsed. Raises CheckpointProblem where this instance did not sign it."""
    if not instance.key.signed(signed.text, signed.signature, audit_tree.NAMESPACE):
        raise CheckpointProblem("a checkpoint in the database is not signed by this instance")
    return audit_tree.read(signed.text)


def _alarm(instance: Instance, summary: str) -> None:
    if alarms.raise_about_database(instance, "audit-broken", summary):
        log.error("alarm", reason=summary)


def file_keeper(path: Path) -> Callable[[SignedCheckpoint], None]:
    """A listener that writes the last checkpoint to a file, which is one more witness if it is on another machine."""

    def keep(signed: SignedCheckpoint) -> None:
        text = json.dumps({"checkpoint": signed.text, "signature": signed.signature}) + "\n"
        fresh = path.with_name(path.name + ".new")
        try:
            fresh.write_text(text, "ascii")
            os.replace(fresh, path)
        except OSError as error:
            log.warning("the checkpoint cannot be kept", file=str(path), why=str(error))

    return keep


def recall(instance: Instance, path: Path) -> None:
    """Raise an alarm where the log does not go on from the checkpoint that this service wrote last; path: of
    file_keeper.

    The database was then set back while nothing served (decision 339). A missing file is no alarm.
    """
    try:
        fields = json.loads(path.read_text("ascii"))
        signed = SignedCheckpoint(str(fields["checkpoint"]), str(fields["signature"]))
        before = read_signed(instance, signed)
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError, CheckpointProblem) as error:
        log.warning("the checkpoint that was kept cannot be used", file=str(path), why=str(error))
        return
    if not instance.database.read(lambda connection: _goes_on(connection, before)):
        moment = datetime.fromtimestamp(before.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        _alarm(
            instance,
            f"Alarm: the database went back: the audit log does not go on from the {before.size} records that it had "
            f"at {moment}. What was taken away since, and no host knows, counts again: tokens, access keys, passwords, "
            "members, Git. Look what it was and take it away again, as docs/recovery.md says",
        )


def _goes_on(connection: Connection, before: Checkpoint) -> bool:
    """Whether the log still begins with the records of a checkpoint."""
    if before.size == 0 or audit_log.places_end(connection) < before.size:
        return before.size == 0
    try:
        return audit_tree.frontier(audit_log.whole(connection), before.size).root() == before.root
    except CheckpointProblem:
        return False


def for_hosts(instance: Instance, sizes: Collection[int]) -> dict[int, dict[str, Any]]:
    """What hosts get with their documents, by the size of the last checkpoint that each has seen, 0 for none."""
    newest = instance.checkpoints.newest
    if newest is None or not sizes:
        return {}
    size = audit_tree.read(newest.text).size
    proofs_known = instance.checkpoints.proofs
    wanted = {earlier for earlier in sizes if (earlier, size) not in proofs_known}
    if wanted:
        if len(proofs_known) > MAX_PROOFS:
            proofs_known.clear()
        proofs = instance.database.read(
            lambda connection: {earlier: _path(connection, earlier, size) for earlier in wanted}
        )
        proofs_known.update(((earlier, size), path) for earlier, path in proofs.items())
    checkpoint = {"text": newest.text, "signature": newest.signature}
    return {earlier: {**checkpoint, "proof": proofs_known.get((earlier, size), [])} for earlier in sizes}


def _path(connection: Connection, first: int, second: int) -> list[str]:
    """The consistency proof for a host; empty where there is none, which shows the host that the log was rewritten."""
    if not 0 < first < second:
        return []
    try:
        return [one.hex() for one in audit_tree.consistency(audit_log.whole(connection), first, second)]
    except CheckpointProblem:
        return []


def checkpoint(instance: Instance, actor: Actor) -> SignedCheckpoint:
    """The last checkpoint. Raises Refusal FORBIDDEN, or MISSING before there is one."""
    with Attempt(instance, actor, "events:read", "read the audit log's checkpoint", target_kind="event") as attempt:
        newest = attempt.read(audit_log.newest)
        if newest is None:
            raise missing("checkpoint")
        return newest


def prove(instance: Instance, actor: Actor, event_id: int) -> InclusionProof:
    """A proof that an event is in the log of the last checkpoint.

    Raises Refusal MISSING, also where the event has no place yet.
    """

    def question(connection: Connection) -> InclusionProof | None:
        if events.get(connection, actor.workspace_id, event_id) is None:
            return None
        newest, place = audit_log.newest(connection), audit_log.place_of(connection, event_id)
        if newest is None or place is None:
            return None
        size = audit_tree.read(newest.text).size
        (leaf,) = [one for one in audit_log.places(connection, place[0]) if one.position == place[0]]
        assert leaf.record is not None
        path = tuple(audit_tree.inclusion(audit_log.whole(connection), place[0], size))
        return InclusionProof(place[0], audit_log.text_of(leaf.record).decode(), path, newest)

    with Attempt(instance, actor, "events:read", "prove an event", target_kind="event", target_id=event_id) as attempt:
        try:
            proof = attempt.read(question)
        except CheckpointProblem as problem:
            raise _broken(problem) from problem
        if proof is None:
            raise missing("event")
        return proof


def consistency(instance: Instance, actor: Actor, first: int, second: int) -> tuple[bytes, ...]:
    """The proof that the log of `second` records begins with the log of `first` records. Raises Refusal INVALID."""
    with Attempt(instance, actor, "events:read", "prove the audit log", target_kind="event") as attempt:
        try:
            newest = attempt.read(audit_log.newest)
            size = 0 if newest is None else audit_tree.read(newest.text).size
            if not 0 <= first <= second <= size:
                words = f"The log has {size} records; first is at most second, and second at most that."
                raise invalid("second", words)
            return tuple(
                attempt.read(lambda connection: audit_tree.consistency(audit_log.whole(connection), first, second))
            )
        except CheckpointProblem as problem:
            raise _broken(problem) from problem


def _broken(problem: CheckpointProblem) -> Refusal:
    return Refusal(Kind.UNAVAILABLE, "audit-broken", f"The chain of the audit log is broken: {problem}.")
