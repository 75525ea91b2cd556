"""The chain of the audit log: what calls take and answer; must call no use case."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from keyrack.core.audit.chain import InclusionProof
from keyrack.store.audit.audit_log import SignedCheckpoint
from keyrack.web.native.shapes import Answer, Count, Query, about

_HASH = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
_TEXT = '{"access":9,"at":1795000000,"root":"6e34…","size":7}'
Hashes = Annotated[list[str], about("Hashes, in hexadecimal, in the order of RFC 6962.", [_HASH])]


class Checkpoint(Answer):
    """What the audit log was at a moment, signed."""

    text: Annotated[str, about("What is signed: JSON with size, root, access and at.", _TEXT)]
    signature: Annotated[
        str,
        about("An SSH signature by the instance's key, for keyrack-audit.", "-----BEGIN SSH SIGNATURE-----…"),
    ]


class EventProof(Answer):
    """That an event is in the audit log."""

    position: Annotated[Count, about("Its place, from 0.")]
    record: Annotated[
        str, about("The event's record. Its leaf is the SHA-256 of a zero byte and this text.", '{"action":"…"}')
    ]
    proof: Hashes
    checkpoint: Annotated[Checkpoint, about("The log that it is in.")]


class ConsistencyAsked(Query):
    """Two sizes of the log."""

    first: Annotated[int, Field(ge=0, le=2**53), about("Records of the earlier log.", 3)] = 0
    second: Annotated[int, Field(ge=0, le=2**53), about("Records of the later log.", 7)] = 0


class Consistency(Answer):
    """That a log begins with an earlier one."""

    first: Annotated[Count, about("Records of the earlier log.")]
    second: Annotated[Count, about("Records of the later log.")]
    proof: Hashes


def checkpoint(signed: SignedCheckpoint) -> Checkpoint:
    """A checkpoint."""
    return Checkpoint(text=signed.text, signature=signed.signature)


def event_proof(proof: InclusionProof) -> EventProof:
    """That an event is in the log."""
    return EventProof(
        position=proof.position,
        record=proof.record,
        proof=hashes(proof.path),
        checkpoint=checkpoint(proof.checkpoint),
    )


def hashes(path: Iterable[bytes]) -> list[str]:
    """A proof's hashes."""
    return [one.hex() for one in path]
