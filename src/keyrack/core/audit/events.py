"""The audit log as people read it; must never change an event."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection

from keyrack.core import cursors, lifetimes, lookups, validation
from keyrack.core.instance import Instance
from keyrack.core.lifetimes import LifetimeError
from keyrack.core.work import Attempt
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, Event, EventFilter, Page, Window
from keyrack.ssh.names import hidden_character
from keyrack.store.audit import events
from keyrack.store.hosts import deleted_servers

PAGE_SCAN_LIMIT, KINDS, REFUSED, ALARM = events.PAGE_SCAN_LIMIT, events.KINDS, events.REFUSED, events.ALARM
PAGE_SIZE = 1000
ALL = EventFilter()


def find(
    instance: Instance,
    actor: Actor,
    asked: EventFilter = ALL,
    *,
    offset: int = 0,
    limit: int = 15,
    cursor: str | None = None,
) -> Page[Event]:
    """A page of the workspace's events, newest first.

    cursor: of the page before, "" for the first one; takes the place of offset. Such a page searches LOOKED_THROUGH
    events and may have fewer than `limit`, or none, though more follow: `after` tells. Raises Refusal MISSING for the
    server, INVALID for kind, key and a span that ends before it begins.
    """
    server_id = asked.server_id
    attempt = Attempt(instance, actor, "events:read", "read the audit log", target_kind="event", server_id=server_id)
    with attempt:
        window = Window(limit, offset, cursors.place(cursor, int))
        if asked.kind not in ("", REFUSED, ALARM, *KINDS):
            raise invalid("kind", f"kind takes one of {REFUSED}, {ALARM}, {', '.join(KINDS)}.")
        if asked.since is not None and asked.until is not None and asked.since > asked.until:
            raise invalid("to", "This span ends before it begins, so that it holds no event; ask for a later end.")
        if asked.key:
            # The filter searches the words of events, where a part of a fingerprint could be part of anything.
            validation.fingerprint(asked.key, field="key")

        def question(connection: Connection) -> Page[Event]:
            if server_id is not None:
                lookups.require_server(connection, actor, server_id)
            return events.find(connection, actor.workspace_id, asked, window)

        return attempt.read(question)


def server_named(instance: Instance, actor: Actor, reference: str) -> int:
    """The id of the server whose events are wanted, by id or name; also of a deleted one, by its id, or by its name as
    long as its host's last document is kept.

    Raises Refusal MISSING, or TAKEN where several have or had the name.
    """
    with Attempt(instance, actor, "events:read", "read the audit log", target_kind="event") as attempt:

        def question(connection: Connection) -> int:
            try:
                return lookups.server_named(connection, actor, reference).id
            except Refusal as refusal:
                if refusal.kind is not Kind.MISSING or hidden_character(reference) is not None:
                    raise
            number = int(reference) if lookups.NUMBER.fullmatch(reference) else None
            if number is not None and events.any_on(connection, actor.workspace_id, number):
                return number
            deleted = deleted_servers.ids_named(connection, actor.workspace_id, reference)
            if len(deleted) > 1:
                ids = ", ".join(map(str, deleted))
                words = f"Several servers that were deleted had this name; use the id, one of: {ids}."
                raise Refusal(Kind.TAKEN, "name-ambiguous", words)
            if not deleted:
                words = (
                    "There is no such server. One that has another name now is found by that one or by its id, "
                    "one that was deleted by the id that its events have."
                )
                raise Refusal(Kind.MISSING, "server-missing", words)
            return deleted[0]

        return attempt.read(question)


def every(
    instance: Instance, actor: Actor, asked: EventFilter = ALL, *, limit: int = PAGE_SIZE
) -> Iterator[Page[Event]]:
    """All events that find() finds, page by page, each read when it is wanted; limit: of a page."""
    cursor: str | None = ""
    while cursor is not None:
        page = find(instance, actor, asked, limit=limit, cursor=cursor)
        yield page
        cursor = None if page.after is None else cursors.write(page.after)


def get(instance: Instance, actor: Actor, event_id: int) -> Event:
    """One event of the workspace. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "events:read", "read the audit log", target_kind="event") as attempt:
        event = attempt.read(lambda connection: events.get(connection, actor.workspace_id, event_id))
        if event is None:
            raise missing("event")
        return event


def moment(text: str, *, field: str, end: bool = False) -> datetime:
    """A time as people write it: RFC 3339 with a zone, or a date, which is a day in UTC; end: its last moment.

    Raises Refusal INVALID.
    """
    try:
        return lifetimes.moment_or_day(text, end=end)
    except LifetimeError as problem:
        raise invalid(field, f"{field} {problem}. A day in UTC is written like 2026-11-22.") from None
