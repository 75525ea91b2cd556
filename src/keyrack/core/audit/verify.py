"""Looks through the audit log for what was changed, in the database or in an export of it; must mend nothing.

The first record that is not as it was is named, as everything after it may follow from it. In the database each place
in the chain has a seal of its own; an export holds the hashes of each block of records, signed, so that a copy of it
can be looked through by whoever knows the public key, without database and service.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection

from keyrack.core.audit import chain
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.model import Actor
from keyrack.protocol import audit_tree
from keyrack.protocol.audit_tree import CheckpointProblem
from keyrack.store import audit_log
from keyrack.store.audit_log import Chained, Signed
from keyrack.store.plain import encode

BLOCK = 256
Verified = Callable[[str, str], bool]
"""Whether a text has this signature, for the audit log."""
Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """records: how many are as they were; pruned: of these, how many events were kept long enough and deleted;
    problem: what is wrong first, "" where nothing is; new: events without a place yet.
    """

    records: int
    pruned: int
    problem: str
    new: int = 0


class _Marks:
    """What the log was at certain sizes, as checkpoints say; each is compared when so many records were looked at."""

    def __init__(self, kept: Iterable[Signed], witnessed: Iterable[Signed]) -> None:
        self._waiting = sorted(
            (found.size, found.root, who)
            for who, several in (("signed", kept), ("seen by a witness", witnessed))
            for found in (audit_tree.read(one.text) for one in several)
        )

    def problem(self, tree: audit_tree.Frontier) -> str:
        """What is wrong with the records that the tree is over by now; "" where nothing is."""
        while self._waiting and self._waiting[0][0] <= tree.size:
            _size, root, who = self._waiting.pop(0)
            if root != tree.root():
                return f"the first {tree.size} records are not those that were {who}"
        return ""

    def missing(self, tree: audit_tree.Frontier) -> str:
        """What is wrong with the end of the log; "" where nothing is."""
        if not self._waiting:
            return ""
        size, _root, who = self._waiting[-1]
        return f"records from place {tree.size} on are missing; there were {size}, as was {who}"


def _unsigned(witnesses: Iterable[Signed], signed: Verified) -> str:
    """What is wrong with checkpoints that witnesses kept; "" where nothing is."""
    for one in witnesses:
        if not signed(one.text, one.signature):
            return "the checkpoint of a witness is not signed by this instance"
        try:
            audit_tree.read(one.text)
        except CheckpointProblem as problem:
            return f"the checkpoint of a witness cannot be read: {problem}"
    return ""


def database(
    instance: Instance, actor: Actor, told: Told = lambda count: None, witnesses: Sequence[Signed] = ()
) -> Outcome:
    """Look through the log in the database; told: hears how many records were looked at.

    witnesses: checkpoints kept elsewhere, that this log must go on from.
    """
    with Attempt(instance, actor, "instance:tidy", "verify the audit log", target_kind="event") as attempt:
        by_instance = partial(instance.key.signed, namespace=audit_tree.NAMESPACE)
        if problem := attempt.read(lambda connection: _signed(instance, connection)):
            return Outcome(0, 0, problem)
        if problem := _unsigned(witnesses, by_instance):
            return Outcome(0, 0, problem)
        marks = _Marks(attempt.read(audit_log.checkpoints), witnesses)
        until = attempt.read(_pruned_until)
        tree, pruned = audit_tree.Frontier(), 0
        while True:
            first = tree.size
            found = attempt.read(lambda connection, first=first: list(audit_log.places(connection, first)))  # type: ignore[misc]
            for place in found:
                if problem := _wrong(place, tree.size, until):
                    return Outcome(tree.size, pruned, problem)
                pruned += place.record is None
                tree.add(place.hash)
                if problem := marks.problem(tree):
                    return Outcome(tree.size, pruned, problem)
            told(tree.size)
            if not found:
                break
        if problem := marks.missing(tree):
            return Outcome(tree.size, pruned, problem)
        new = attempt.read(lambda connection: audit_log.unchained(connection, everything=True))
        last = attempt.read(audit_log.newest_event)
        for event in new:
            # What was committed late has its place within a second; who enters an event among older ones has not.
            if event["id"] < last - audit_log.BACK_ON_POSTGRESQL or (event["id"] < last and not _late(instance, event)):
                return Outcome(tree.size, pruned, f"event {event['id']} was inserted: it has no place in the chain")
        return Outcome(tree.size, pruned, "", len(new))


def _late(instance: Instance, event: Mapping[str, Any]) -> bool:
    return bool((instance.now() - event["at"]).total_seconds() < chain.KEPT_EVERY.total_seconds())


def _signed(instance: Instance, connection: Connection) -> str:
    """What is wrong with the checkpoints that are kept."""
    found = audit_log.checkpoints(connection)
    try:
        read = [chain.read_signed(instance, one) for one in found]
    except CheckpointProblem as problem:
        return str(problem)
    if any(one.size >= other.size or one.access > other.access for one, other in pairwise(read)):
        return "the checkpoints are not in order"
    if not found and not audit_log.is_empty(connection):
        return "all checkpoints are missing"
    return ""


def _pruned_until(connection: Connection) -> int:
    """The last event that was deleted after it was kept long enough, as sound events in the chain say."""
    until = 0
    for place in audit_log.places_of(connection, "instance:tidy"):
        if place.record is not None and place.sound and audit_tree.leaf(audit_log.text_of(place.record)) == place.hash:
            until = max(until, int(place.record["details"].get("events_until") or 0))
    return until


def _wrong(place: Chained, expected: int, until: int) -> str:
    """What is wrong with a place."""
    if place.position != expected:
        return f"the record at place {expected} is missing"
    if not place.sound:
        return f"the record at place {expected}, event {place.event_id}, was put in another's place or inserted"
    if place.record is None:
        return "" if place.event_id <= until else f"event {place.event_id}, at place {expected}, is missing"
    if audit_tree.leaf(audit_log.text_of(place.record)) != place.hash:
        return f"event {place.event_id}, at place {expected}, was altered"
    return ""


def export(instance: Instance, actor: Actor, told: Told = lambda count: None) -> Iterator[str]:
    """The log as lines of JSON: a record each, after each block of them its hashes, signed, and last the checkpoint."""
    with Attempt(instance, actor, "instance:tidy", "export the audit log", target_kind="event") as attempt:
        newest = attempt.read(audit_log.newest)
        size = 0 if newest is None else audit_tree.read(newest.text).size
        yield json.dumps({"keyrack": "audit log", "key": instance.key.public_line, "records": size})
        hashes: list[bytes] = []
        position = 0
        while position < size:
            found = attempt.read(lambda connection, at=position: list(audit_log.places(connection, at)))  # type: ignore[misc]
            for place in found[: size - position]:
                record = None if place.record is None else json.loads(audit_log.text_of(place.record))
                yield encode({"event": place.event_id, "place": place.position, "record": record})
                hashes.append(place.hash)
                if len(hashes) == BLOCK:
                    yield _block(instance, place.position + 1, hashes)
                    hashes = []
            position += len(found[: size - position])
            told(position)
            if not found:
                break  # whoever verifies it is told what is missing
        if hashes:
            yield _block(instance, position, hashes)
        if newest is not None:
            yield json.dumps({"checkpoint": newest.text, "signature": newest.signature})


def _block(instance: Instance, end: int, hashes: list[bytes]) -> str:
    text = encode({"first": end - len(hashes), "hashes": [one.hex() for one in hashes]})
    return json.dumps({"block": text, "signature": instance.key.sign(text, audit_tree.NAMESPACE)})


def exported(
    lines: Iterable[str],
    signed: Verified,
    told: Told = lambda count: None,
    witnesses: Sequence[Signed] = (),
) -> Outcome:
    """Look through an export; signed: asks the key that is trusted; witnesses: checkpoints that it must go on from."""
    if problem := _unsigned(witnesses, signed):
        return Outcome(0, 0, problem)
    tree, pruned, marks = audit_tree.Frontier(), 0, _Marks((), witnesses)
    waiting: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        try:
            fields = json.loads(line)
            if "place" in fields:
                waiting.append(fields)
            elif "block" in fields:
                if not signed(fields["block"], fields["signature"]):
                    return Outcome(tree.size, pruned, f"the hashes of records from place {tree.size} on are not signed")
                block = json.loads(fields["block"])
                if problem := _block_problem(waiting, block["first"], block["hashes"], tree.size):
                    return Outcome(tree.size, pruned, problem)
                pruned += sum(one["record"] is None for one in waiting)
                for hashed in block["hashes"]:
                    tree.add(bytes.fromhex(hashed))
                    if problem := marks.problem(tree):
                        return Outcome(tree.size, pruned, problem)
                waiting = []
                told(tree.size)
            elif "checkpoint" in fields:
                if waiting:
                    break
                last = Signed(fields["checkpoint"], fields["signature"])
                return Outcome(tree.size, pruned, _end_problem(tree, last, signed) or marks.missing(tree))
        except (ValueError, KeyError, TypeError, AttributeError):
            return Outcome(tree.size, pruned, f"line {number + 1} is not of an export")
    return Outcome(tree.size, pruned, f"records from place {tree.size} on are missing: the export was cut")


def _end_problem(tree: audit_tree.Frontier, last: Signed, signed: Verified) -> str:
    if not signed(last.text, last.signature):
        return "the checkpoint is not signed by this key"
    checkpoint = audit_tree.read(last.text)
    if checkpoint.size > tree.size:
        return f"records from place {tree.size} on are missing; there were {checkpoint.size}"
    return (
        ""
        if (checkpoint.size, checkpoint.root) == (tree.size, tree.root())
        else "the records are not those that were signed"
    )


def _block_problem(found: list[dict[str, Any]], first: int, hashes: list[str], expected: int) -> str:
    """The first record of a block that is not as its hashes say."""
    if first != expected:
        return f"records from place {expected} on are missing; the next ones are from {first} on"
    for at, hashed in enumerate(hashes):
        place = first + at
        if at >= len(found):
            return f"the record at place {place} is missing"
        one = found[at]
        mine = hashed if one["record"] is None else audit_tree.leaf(encode(one["record"]).encode()).hex()
        if mine == hashed and one["place"] == place:
            continue
        if mine in hashes:
            later = [other["place"] for other in found].count(place)
            return (
                f"the record at place {place} is missing" if not later else f"the record at place {place} was reordered"
            )
        if len(found) > len(hashes):
            return f"a record was inserted at place {place}"
        return f"the record at place {place}, event {one['event']}, was altered"
    return f"a record was inserted after place {first + len(hashes) - 1}" if len(found) > len(hashes) else ""
