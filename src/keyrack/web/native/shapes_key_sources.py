"""Accounts that users' keys come from: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated, ClassVar

from keyrack.store.keys.key_sources import KeySource as KeySourceRecord
from keyrack.web.native.shapes import Answer, Count, Id, Request, Time, about, time, time_or_null


class NewKeySource(Request):
    """An account whose keys a user has here too."""

    account: Annotated[str, about("The account's name there.", "alice")]
    url: Annotated[
        str | None, about("The service; none for github.com and gitlab.com.", "https://gitlab.example.org")
    ] = None


class KeySource(Answer):
    """An account whose keys a user has here too."""

    untagged: ClassVar[frozenset[str]] = frozenset({"account_id", "keys", "state", "words", "checked_at", "next_at"})

    id: Annotated[Id, about("Its id.")]
    kind: Annotated[str, about("What speaks there: github or gitlab.", "github")]
    url: Annotated[str, about("The service.", "https://github.com")]
    account: Annotated[str, about("The account's name there.", "alice")]
    account_id: Annotated[str | None, about("Its number there; null before it was asked for.", "583231")]
    keys: Annotated[Count, about("How many of the user's keys came from it.")]
    state: Annotated[
        str,
        about(
            "new, in step, partly (some keys were refused), no answer, waiting, or an alarm: gone, renamed, moved.",
            "in step",
        ),
    ]
    words: Annotated[str, about("Why, where it is not in step.", "")]
    checked_at: Annotated[Time | None, about("When it was last looked at.")]
    next_at: Annotated[Time, about("When it is looked at next.")]
    created_at: Annotated[Time, about("When it was named.")]


class KeySources(Answer):
    """All of a user's sources."""

    items: Annotated[list[KeySource], about("The sources.")]


def key_source(record: KeySourceRecord) -> KeySource:
    """A source."""
    return KeySource(
        id=record.id,
        kind=record.kind,
        url=record.url,
        account=record.account,
        account_id=record.account_id,
        keys=sum(key_id is not None for key_id in record.keys.values()),
        state=record.state,
        words=record.words,
        checked_at=time_or_null(record.checked_at),
        next_at=time(record.next_at),
        created_at=time(record.created_at),
    )


def listed(records: tuple[KeySourceRecord, ...]) -> KeySources:
    """All of a user's sources."""
    return KeySources(items=[key_source(one) for one in records])
