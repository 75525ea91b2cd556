"""Questions about the audit log; must never change or delete an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, Text, cast, func, insert, or_, select, text

from keyrack.model import Actor, Event, EventFilter, Level, Page, Place, Window
from keyrack.ssh.names import spellings
from keyrack.store.engine.prepared import Statement, placeholder, prepared
from keyrack.store.rows import page
from keyrack.store.sealing import event_seals
from keyrack.store.sealing.event_seals import COLUMNS
from keyrack.store.search import contains
from keyrack.store.tables import IS_ALARM, IS_REFUSAL, events
from keyrack.store.tables.columns import UNREADABLE

EVENTS_EXAMINED = 500
"""How many of a workspace's newest events was_raised_in() searches."""
ALARM_SCAN_LIMIT = 2000
"""How many of a server's newest events are searched: more than it can have within an hour."""
PAGE_SCAN_LIMIT = 200_000
"""How many events are searched for one page by cursor if no index helps; it takes a fifth of a second."""
REFUSED, ALARM = "refused", "alarm"
KINDS: Mapping[str, tuple[str, ...]] = {
    "keys": ("user key", "credential", "key", "unmanaged key", "key source", "deploy key", "key policy"),
    "access": ("grant", "request", "request rule", "freeze", "access"),
    "hosts": ("server", "system user", "SSH settings"),
    "people": ("user", "group", "offboarding", "identity", "authenticator"),
    "sessions": ("session",),
    "tokens": ("token", "access key"),
    "repositories": ("repository", "project", "deploy key"),
    "workspace": ("workspace", "webhook", "event", "instance", "database"),
}
"""What people filter events by: each name with the kinds of targets that it stands for."""
_append = Statement(
    lambda: insert(events).values({column.name: placeholder(column) for column in events.c if column.name != "id"})
)


def add(
    connection: Connection,
    actor: Actor,
    *,
    at: datetime,
    action: str,
    outcome: str,
    reason: str,
    target_kind: str,
    target_id: int | None,
    server_id: int | None,
    summary: str,
    level: Level,
    details: Mapping[str, Any],
) -> None:
    """Append an event by an actor; the fields are those of model.Event."""
    event = {
        **_by(actor),
        "at": at,
        "action": action,
        "outcome": outcome,
        "reason": reason,
        "target_kind": target_kind,
        "target_id": target_id,
        "server_id": server_id,
        "summary": summary,
        "level": level,
        "details": dict(details),
    }
    _append.enqueue(connection, event_seals.sealed(connection, event))


def add_many(
    connection: Connection, actor: Actor, common: Mapping[str, Any], entries: Iterable[Mapping[str, Any]]
) -> None:
    """Append events by one actor; common: the fields that all share; entries: the other fields of each."""
    shared = {**_by(actor), **common}
    _append.run_many(connection, event_seals.sealed_each(connection, [{**shared, **entry} for entry in entries]))


def _by(actor: Actor) -> dict[str, Any]:
    return {
        "workspace_id": actor.workspace_id,
        "actor_id": actor.user_id,
        "actor_name": actor.name,
        "token_id": actor.token_id,
        "token_name": actor.token_name,
        "address": actor.address,
        "channel": actor.channel,
    }


def find(connection: Connection, workspace_id: int, asked: EventFilter, window: Window) -> Page[Event]:
    """A page of a workspace's events, newest first.

    A page after a place may be short, or empty, though more follow: it searches the next PAGE_SCAN_LIMIT events of the
    server and span that are asked for.
    """
    within: list[Any] = [events.c.workspace_id == workspace_id]
    if asked.since is not None:
        within.append(events.c.at >= asked.since)
    if asked.until is not None:
        within.append(events.c.at < asked.until)
    if asked.before is not None:
        within.append(events.c.id < asked.before)
    if asked.server_id is not None:
        within.append(events.c.server_id == asked.server_id)
    if asked.kind == ALARM:
        within.append(text(IS_ALARM))
    sought: list[Any] = []
    if asked.concerning is not None:
        # The JSON of details has revisions as "ID": N; in texts there a backslash precedes each quote.
        raised = cast(events.c.details, Text).contains(f'"{asked.concerning}":', autoescape=True)
        sought.append(or_(events.c.server_id == asked.concerning, raised))
    if asked.person:
        sought.append(events.c.actor_name.in_(spellings(asked.person)))
    if asked.key:
        # Details are searched as JSON, which writes a fingerprint as it is.
        sought.append(or_(contains(events.c.summary, asked.key), contains(cast(events.c.details, Text), asked.key)))
    if asked.kind in KINDS:
        sought.append(events.c.target_kind.in_(KINDS[asked.kind]))
    if asked.kind == REFUSED:
        sought.append(text(IS_REFUSAL))
    if asked.search:
        sought.append(contains(events.c.summary, asked.search))
    after = window.after
    beyond = _beyond(connection, within, after) if sought and after is not None else None
    if beyond is not None:
        sought.append(events.c.id > beyond)
    ordered = select(*COLUMNS).where(*within, *sought).order_by(events.c.id.desc())
    piece = page(connection, ordered, _event, offset=window.offset, limit=window.limit, after=after)
    return piece if piece.after is not None or beyond is None else replace(piece, after=(beyond + 1,))


def any_on(connection: Connection, workspace_id: int, server_id: int) -> bool:
    """Whether a workspace has an event of a server, which may be deleted."""
    there = (events.c.server_id == server_id, events.c.workspace_id == workspace_id)
    return connection.execute(select(events.c.id).where(*there).limit(1)).scalar() is not None


def _beyond(connection: Connection, within: Sequence[Any], after: Place) -> int | None:
    """The id of the event at which the search of a page ends, None if it searches all that follow."""
    follow = select(events.c.id).where(*within)
    if after:
        follow = follow.where(events.c.id < after[0])
    return connection.execute(follow.order_by(events.c.id.desc()).offset(PAGE_SCAN_LIMIT).limit(1)).scalar()


def get(connection: Connection, workspace_id: int, event_id: int) -> Event | None:
    """An event of this workspace, or None."""
    statement = select(*COLUMNS).where(events.c.id == event_id, events.c.workspace_id == workspace_id)
    row = connection.execute(statement).one_or_none()
    return None if row is None else _event(row)


def newest_of(
    connection: Connection, workspace_id: int, actor_id: int, target_kind: str, target_id: int, most: int
) -> Event | None:
    """The newest event of a user that changed one target, among the `most` newest events of all workspaces, or None."""
    statement = select(*COLUMNS).where(
        events.c.workspace_id == workspace_id,
        events.c.id > newest_id(connection) - most,
        events.c.actor_id == actor_id,
        events.c.target_kind == target_kind,
        events.c.target_id == target_id,
        events.c.outcome == "done",
    )
    row = connection.execute(statement.order_by(events.c.id.desc()).limit(1)).one_or_none()
    return None if row is None else _event(row)


@prepared
def _newest_id() -> Select[Any]:
    return select(func.max(events.c.id))


def newest_id(connection: Connection) -> int:
    """The id of the newest event of all workspaces, 0 where there is none."""
    return int(_newest_id.value(connection) or 0)


@prepared
def _after(event_id: int, limit: int) -> Select[Any]:
    return select(*COLUMNS).where(events.c.id > event_id).order_by(events.c.id).limit(limit)


def after(connection: Connection, event_id: int, limit: int) -> tuple[Event, ...]:
    """The events of all workspaces with a larger id, oldest first, at most `limit`."""
    return tuple(event_record(row) for row in _after.rows(connection, event_id, limit))


@prepared
def _lately(server_id: int, reason: str, at: datetime, most: int) -> Select[Any]:
    last = select(events.c.reason, events.c.at).where(events.c.server_id == server_id)
    latest = last.order_by(events.c.id.desc()).limit(most).subquery()
    return select(func.count()).select_from(latest).where(latest.c.reason == reason, latest.c.at > at)


def count_lately(connection: Connection, server_id: int, reason: str, since: datetime) -> int:
    """How many events with a reason a server has after an instant, among its last ALARM_SCAN_LIMIT."""
    return int(_lately.value(connection, server_id, reason, since, ALARM_SCAN_LIMIT) or 0)


@prepared
def _was_raised(server_id: int, reason: str, summary: str, at: datetime, most: int) -> Select[Any]:
    last = select(events.c.id, events.c.reason, events.c.summary, events.c.at).where(events.c.server_id == server_id)
    latest = last.order_by(events.c.id.desc()).limit(most).subquery()
    matching = (latest.c.reason == reason, latest.c.summary == summary, latest.c.at >= at)
    return select(latest.c.id).where(*matching).limit(1)


def was_raised(connection: Connection, server_id: int, reason: str, summary: str, since: datetime) -> bool:
    """Whether an alarm with this reason and summary was raised about a server since an instant, by its last
    ALARM_SCAN_LIMIT events.
    """
    return _was_raised.value(connection, server_id, reason, summary, since, ALARM_SCAN_LIMIT) is not None


def was_raised_in(connection: Connection, workspace_id: int, reason: str, summary: str, since: datetime) -> bool:
    """Whether an alarm with this reason and summary was raised in a workspace since an instant, by its last
    EVENTS_EXAMINED events.
    """
    newest = (
        select(events).where(events.c.workspace_id == workspace_id).order_by(events.c.id.desc()).limit(EVENTS_EXAMINED)
    )
    latest = newest.subquery()
    statement = select(latest.c.id).where(latest.c.at >= since, latest.c.reason == reason, latest.c.summary == summary)
    return connection.execute(statement.limit(1)).scalar() is not None


def newest(connection: Connection, server_id: int, channel: str, *, most: int) -> list[tuple[datetime, str]]:
    """Time and summary of a server's events by a channel, the newest first, at most `most`."""
    statement = select(events.c.at, events.c.summary).where(
        events.c.server_id == server_id, events.c.channel == channel
    )
    return [(row.at, row.summary) for row in connection.execute(statement.order_by(events.c.id.desc()).limit(most))]


def _event(row: Row[Any]) -> Event:
    return event_record(dict(row._mapping))


def event_record(row: Mapping[str, Any]) -> Event:
    """An event from its columns. Details that are no object, as others wrote them, are replaced by a mark; all other
    columns have their types from store/engine/sqlite_types.py.
    """
    values = dict(row)
    if not isinstance(values["details"], dict):
        values["details"] = {UNREADABLE: True}
    return Event(**values)
