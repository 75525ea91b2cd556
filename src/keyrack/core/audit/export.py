"""Writes exports of the audit log; must change no event.

An export has the signed hashes of each block of records, so that anybody with the public key can verify a copy without
database or service (verify_export.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from keyrack.core.audit.verify_export import BLOCK, OnProgress
from keyrack.core.audit.verify_log import DeletedEvents, deleted_events
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.model import Actor
from keyrack.protocol import audit_tree
from keyrack.store.audit import audit_log
from keyrack.store.audit.audit_log import ChainedEvent
from keyrack.store.sealing.canonical_json import encode


def lines(instance: Instance, actor: Actor, on_progress: OnProgress = lambda count: None) -> Iterator[str]:
    """The log as lines of JSON: a head, one line for each record, after each block its signed hashes, and last the
    checkpoint.

    on_progress: called with how many records are written.
    """
    with Attempt(instance, actor, "instance:tidy", "export the audit log", target_kind="event") as attempt:
        newest = attempt.read(audit_log.newest)
        deleted = attempt.read(deleted_events)
        size = 0 if newest is None else audit_tree.read(newest.text).size
        yield json.dumps({"keyrack": "audit log", "key": instance.key.public_line, "records": size})
        block: list[ChainedEvent] = []
        position = 0
        while position < size:
            places = attempt.read(lambda connection, at=position: list(audit_log.places(connection, at)))  # type: ignore[misc]
            for place in places[: size - position]:
                record = None if place.record is None else json.loads(audit_log.text_of(place.record))
                yield encode({"event": place.event_id, "place": place.position, "record": record})
                block.append(place)
                if len(block) == BLOCK:
                    yield _block(instance, place.position + 1, block, deleted)
                    block = []
            position += len(places[: size - position])
            on_progress(position)
            if not places:
                break  # verifying the export shows what is missing
        if block:
            yield _block(instance, position, block, deleted)
        if newest is not None:
            yield json.dumps({"checkpoint": newest.text, "signature": newest.signature})


def _block(instance: Instance, end: int, block: list[ChainedEvent], deleted: DeletedEvents) -> str:
    """The signed hashes of a block of records that ends before place `end`.

    It also names the events that were deleted for their age, by place: a record that somebody takes out of an export is
    none of them.
    """
    deleted_for_age = {
        str(one.position): one.event_id for one in block if one.record is None and one.event_id in deleted
    }
    text = encode({"first": end - len(block), "gone": deleted_for_age, "hashes": [one.hash.hex() for one in block]})
    return json.dumps({"block": text, "signature": instance.key.sign(text, audit_tree.NAMESPACE)})
