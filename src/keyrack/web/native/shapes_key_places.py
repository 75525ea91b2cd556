"""Where one key stands: what the call takes and answers; must call no use case."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict

from keyrack.core.keys.key_places import KeyPlace as PlaceRecord
from keyrack.core.keys.key_places import KeyPlaces as PlacesRecord
from keyrack.core.keys.key_places import PlaceKind
from keyrack.web.native.shapes import (
    Answer,
    CursorWindow,
    Fingerprint,
    Flag,
    Id,
    NextCursor,
    PlusKept,
    Time,
    about,
    time,
    time_or_null,
)


class KeyPlacesAsked(CursorWindow):
    """Which key."""

    # Needed, as the core says: who may not ask hears that first.
    model_config = ConfigDict(json_schema_extra={"required": ["fingerprint"]})
    fingerprint: Annotated[Fingerprint, PlusKept, about("The key, as ssh-keygen -l prints it.")] = ""


class KeyPlace(Answer):
    """One place of a key: with a user, on a server, or in a repository."""

    kind: Annotated[PlaceKind, about("What it is there; an unmanaged key is one in a file of the host.", "credential")]
    id: Annotated[Id, about("The id of that; for a grant, the grant's.")]
    name: Annotated[str | None, about("The key's title or label there, or the path of the file.", "laptop")]
    user: Annotated[str | None, about("Whose it is, or whom the grant lets in; null for the other kinds.", "alice")]
    server: Annotated[str | None, about("On which server it lets in; null for none.", "web-1")]
    server_id: Annotated[Id | None, about("That server's id.")]
    system_user: Annotated[str | None, about("As which system user; * for every one.", "deploy")]
    repository: Annotated[str | None, about("The path of the repository of which it is a deploy key.", None)]
    can_push: Annotated[bool | None, about("Whether the deploy key may push; null for the other kinds.", None)]
    delivered: Annotated[
        bool | None,
        about("Whether the host obeys it, by its word; null where Keyrack delivers nothing, as a file has it.", True),
    ]
    refused: Annotated[
        str | None,
        about(
            "Why sshd refuses it there all the same, by the host's word; empty where it does not, null where the host "
            "has not said.",
            "",
        ),
    ]
    frozen: Annotated[Flag, about("Whether it opens nothing new there until it is confirmed.")]
    created_at: Annotated[Time, about("Since when it is there.")]
    expires_at: Annotated[Time | None, about("Until when; null for no end.")]
    last_used_at: Annotated[Time | None, about("When it last logged in there; for a user's key anywhere.")]


class KeyPlaces(Answer):
    """Where a key stands and what it opens, as far as the caller may see it."""

    fingerprint: Annotated[Fingerprint, about("The key.")]
    revoked_at: Annotated[Time | None, about("When it was revoked everywhere; null where it is not.")]
    ended_at: Annotated[Time | None, about("When the key reached its end; null where it did not.")]
    items: Annotated[list[KeyPlace], about("What the page holds; it may be short while there is a next one.")]
    next: NextCursor


def key_places(record: PlacesRecord) -> KeyPlaces:
    """A page of a key's places."""
    return KeyPlaces(
        fingerprint=record.fingerprint,
        revoked_at=time_or_null(record.revoked_at),
        ended_at=time_or_null(record.ended_at),
        items=[_place(one) for one in record.items],
        next=record.next,
    )


def _place(one: PlaceRecord) -> KeyPlace:
    return KeyPlace(
        kind=one.kind,
        id=one.id,
        name=one.name,
        user=one.user,
        server=one.server,
        server_id=one.server_id,
        system_user=one.system_user,
        repository=one.repository,
        can_push=one.can_push,
        delivered=one.delivered,
        refused=one.refused,
        frozen=one.frozen,
        created_at=time(one.created_at),
        expires_at=time_or_null(one.expires_at),
        last_used_at=time_or_null(one.last_used_at),
    )
