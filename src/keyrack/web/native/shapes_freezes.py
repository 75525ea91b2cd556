"""Freezes of keys: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated

from keyrack.core.keys.freezes import Frozen
from keyrack.store.keys.freezes import Freeze as FreezeRecord
from keyrack.web.native.shapes import (
    Answer,
    Count,
    Flag,
    Id,
    IdAsked,
    PerPage,
    Query,
    Request,
    Time,
    about,
    time,
    time_or_null,
)
from keyrack.web.native.shapes_keys import Receipt, receipt


class NewFreeze(Request):
    """Which keys open no new session until they are confirmed: a user's, those on a server, or all."""

    user: Annotated[str | None, about("The keys of this user, by name.", "alice")] = None
    server: Annotated[str | int | None, about("The keys on this server, by name or id.", None)] = None
    reason: Annotated[str | None, about("Why, for those who ask later.", "a laptop was stolen")] = None
    preview: Annotated[bool, about("Whether to freeze nothing and only show which keys it would be.", False)] = False


class FreezesAsked(Query):
    """Which part of the freezes."""

    before: Annotated[IdAsked, about("What is older than the freeze with this id.", 99)] = None
    per_page: Annotated[PerPage, about("How many a page holds: 1 to 200.", 50)] = 50


class Freeze(Answer):
    """Keys that open no new session until they are confirmed."""

    id: Annotated[Id | None, about("Its id; null in a preview.")]
    user: Annotated[str | None, about("Whose keys; null for everybody's.", "alice")]
    user_id: Annotated[Id | None, about("That user's id.")]
    server: Annotated[str | None, about("On which server; null for all.", None)]
    server_id: Annotated[Id | None, about("That server's id.")]
    keys: Annotated[Count, about("How many keys it is for.")]
    reason: Annotated[str, about("Why.", "a laptop was stolen")]
    asked_by: Annotated[str, about("Who asked for it.", "olga")]
    at: Annotated[Time | None, about("When.")]
    ended_at: Annotated[Time | None, about("When somebody ended it.")]
    ended_by: Annotated[str | None, about("Who that was.", None)]


class FreezeProgress(Freeze):
    """A freeze, and which hosts obey it."""

    done: Annotated[Flag, about("Whether every host obeys.")]
    words: Annotated[str, about("The same in words.", "done on 2 of 3 servers; not yet on web-1")]
    break_glass: Annotated[
        Count, about("In a preview and in the answer to POST: break-glass keys, which are not frozen.")
    ]
    servers: Annotated[list[Receipt], about("Host by host.")]


class Freezes(Answer):
    """The freezes of the workspace."""

    items: Annotated[list[Freeze], about("Newest first.")]


def freeze(record: FreezeRecord) -> Freeze:
    """A freeze."""
    return Freeze(
        id=record.id,
        user=record.user,
        user_id=record.user_id,
        server=record.server,
        server_id=record.server_id,
        keys=record.keys,
        reason=record.reason,
        asked_by=record.asked_by,
        at=time(record.at),
        ended_at=time_or_null(record.ended_at),
        ended_by=record.ended_by,
    )


def progress(record: Frozen) -> FreezeProgress:
    """A freeze, or what one would be for, and which hosts obey it."""
    held = record.freeze
    return FreezeProgress(
        id=held.id if held else None,
        user=held.user if held else record.user,
        user_id=held.user_id if held else None,
        server=held.server if held else record.server,
        server_id=held.server_id if held else None,
        keys=record.keys,
        reason=held.reason if held else "",
        asked_by=held.asked_by if held else "",
        at=time(held.at) if held else None,
        ended_at=time_or_null(held.ended_at) if held else None,
        ended_by=held.ended_by if held else None,
        done=record.done,
        words=record.words,
        break_glass=record.break_glass,
        servers=[receipt(one) for one in record.servers],
    )
