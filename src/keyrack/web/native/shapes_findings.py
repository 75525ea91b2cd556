"""Keys that should not be there any more: what the call takes and answers; must call no use case."""

from __future__ import annotations

from typing import Annotated, Literal

from keyrack.core.keys.findings import KINDS, OLD_DAYS, UNUSED_DAYS, FindingKind
from keyrack.core.keys.findings import Finding as FindingRecord
from keyrack.core.keys.findings import Findings as FindingsRecord
from keyrack.web.native.shapes import (
    Answer,
    CursorWindow,
    Days,
    Fingerprint,
    Id,
    NextCursor,
    Time,
    about,
    time,
    time_or_null,
)

ALL = ",".join(KINDS)


class FindingsAsked(CursorWindow):
    """What is looked for."""

    kind: Annotated[str, about("Which of weak, old, unused, unowned, with commas between.", ALL)] = ALL
    old_days: Annotated[Days, about("From how many days on a key is old.", OLD_DAYS)] = OLD_DAYS
    unused_days: Annotated[Days, about("After how many days without a login a key is unused.", UNUSED_DAYS)] = (
        UNUSED_DAYS
    )


class Finding(Answer):
    """A key, and what is wrong with it."""

    kind: Annotated[Literal["credential", "user key"], about("What it is.", "credential")]
    id: Annotated[Id, about("Its id.")]
    findings: Annotated[list[FindingKind], about("What is wrong.", ["old"])]
    words: Annotated[str, about("The same for people.", "It was entered on 2024-01-02.")]
    fingerprint: Annotated[Fingerprint, about("Its fingerprint.")]
    key_type: Annotated[str, about("The type of the key.", "ssh-ed25519")]
    name: Annotated[str, about("Its label, or its title.", "laptop")]
    user: Annotated[str | None, about("Whose it is; null where no user registered it.", "alice")]
    server: Annotated[str | None, about("On which server; null for a user's key.", "web-1")]
    server_id: Annotated[Id | None, about("That server's id.")]
    username: Annotated[str | None, about("As which system user.", "deploy")]
    created_at: Annotated[Time, about("When it was entered.")]
    last_used_at: Annotated[Time | None, about("When somebody last logged in with it.")]


class Findings(Answer):
    """Keys that should not be there any more."""

    items: Annotated[list[Finding], about("What the page holds.")]
    next: NextCursor


def findings(record: FindingsRecord) -> Findings:
    """A page of them."""
    return Findings(items=[_finding(one) for one in record.items], next=record.next)


def _finding(one: FindingRecord) -> Finding:
    key = one.key
    return Finding(
        kind=key.kind,
        id=key.id,
        findings=list(one.kinds),
        words=one.words,
        fingerprint=key.fingerprint,
        key_type=key.key_type,
        name=key.name,
        user=key.user,
        server=key.server,
        server_id=key.server_id,
        username=key.username,
        created_at=time(key.created_at),
        last_used_at=time_or_null(key.used_at),
    )
