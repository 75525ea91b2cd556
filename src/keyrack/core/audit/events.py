"""The audit log as people read it; must never change an event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from keyrack.core import cursors, lookups
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.errors import invalid, missing
from keyrack.model import Actor, Event, Page
from keyrack.store.audit import events

LOOKED_THROUGH = events.LOOKED_THROUGH
REFUSED, ALARM = "refused", "alarm"
AT_ONCE = 1000
KINDS: Mapping[str, tuple[str, ...]] = {
    "keys": ("user key", "credential", "key", "unmanaged key", "key source", "deploy key"),
    "access": ("grant", "request", "request rule", "freeze"),
    "hosts": ("server", "system user", "SSH settings"),
    "people": ("user", "group", "offboarding", "identity", "authenticator"),
    "sessions": ("session",),
    "tokens": ("token", "access key"),
    "repositories": ("repository", "project", "deploy key"),
}
"""What events are about, as people ask for it: the kinds of their targets."""


def find(
    instance: Instance,
    actor: Actor,
    *,
    server_id: int | None = None,
    concerning: int | None = None,
    search: str = "",
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    person: str = "",
    key: str = "",
    kind: str = "",
    offset: int = 0,
    limit: int = 15,
    cursor: str | None = None,
) -> Page[Event]:
    """A page of the workspace's events, or of one server's, newest first.

    concerning: a server; beside its own events those by which it was to obey something else, such as grants to its tag;
    since, until: from that instant on, and before that one; before: only events with a smaller id, so that who reads
    all of a log goes on from the last one; person: what a user, by name, did; key: what names this fingerprint;
    kind: one of KINDS, REFUSED or ALARM, "" for all; cursor: instead of offset, of the page before, "" for the first
    one. Such a page looks through so many events (LOOKED_THROUGH) and may hold fewer than `limit`, or none, though more
    follow: `after` says so. Raises Refusal MISSING for the server, INVALID for the kind.
    """
    attempt = Attempt(instance, actor, "events:read", "read the audit log", target_kind="event", server_id=server_id)
    with attempt:
        after = cursors.place(cursor, int)
        if kind not in ("", REFUSED, ALARM, *KINDS):
            raise invalid("kind", f"kind takes one of {REFUSED}, {ALARM}, {', '.join(KINDS)}.")

        def question(connection: Connection) -> Page[Event]:
            if server_id is not None:
                lookups.require_server(connection, actor, server_id)
            return events.find(
                connection,
                actor.workspace_id,
                server_id=server_id,
                concerning=concerning,
                search=search,
                since=since,
                until=until,
                before=before,
                actor_name=person,
                key=key,
                kinds=KINDS.get(kind, ()),
                refused=kind == REFUSED,
                alarms=kind == ALARM,
                offset=offset,
                limit=limit,
                after=after,
            )

        return attempt.read(question)


def every(instance: Instance, actor: Actor, *, limit: int = AT_ONCE, **asked: Any) -> Iterator[Page[Event]]:
    """All that find() would find, a page after the other, each when it is wanted; limit: of a page."""
    cursor: str | None = ""
    while cursor is not None:
        found = find(instance, actor, **asked, limit=limit, cursor=cursor)
        yield found
        cursor = None if found.after is None else cursors.write(found.after)


def get(instance: Instance, actor: Actor, event_id: int) -> Event:
    """One event of the workspace. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "events:read", "read the audit log", target_kind="event") as attempt:
        found = attempt.read(lambda connection: events.get(connection, actor.workspace_id, event_id))
        if found is None:
            raise missing("event")
        return found


def moment(text: str, *, field: str, end: bool = False) -> datetime:
    """A time as people ask for it: ISO 8601 with a zone, or a date, which is a day in UTC; end: of that day.

    Raises Refusal INVALID.
    """
    problem = invalid(field, "A time is written like 2026-11-22T16:00:00Z, a day in UTC like 2026-11-22.")
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None and len(text) == len("2026-11-22"):
            return at.replace(tzinfo=UTC) + timedelta(days=1 if end else 0)
    except (ValueError, OverflowError):
        raise problem from None
    if at.tzinfo is None:
        raise problem
    return at
