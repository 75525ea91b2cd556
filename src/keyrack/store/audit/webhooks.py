"""Questions about webhooks and what is sent to them; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Delete, Select, Update, delete, insert, select, update

from keyrack.model import LEVELS, Event, Level
from keyrack.store.audit.events import event_record
from keyrack.store.dialect import dialect_insert
from keyrack.store.engine.prepared import Row, Statement, among, placeholder, prepared
from keyrack.store.sealing.event_seals import COLUMNS
from keyrack.store.tables import IS_WAITING, events, webhook_deliveries, webhooks

DeliveryState = Literal["waiting", "delivered", "failed"]
DELIVERY_STATES: tuple[DeliveryState, ...] = get_args(DeliveryState)
WAITING, DELIVERED, FAILED = DELIVERY_STATES


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where events are sent. level: the least that is sent; actions: patterns; cursor: id of the last event looked at;
    active: False once it is deleted: its deliveries are then deleted little by little, and its row at last.
    """

    id: int
    workspace_id: int
    url: str
    encrypted_secret: bytes
    level: Level
    actions: tuple[str, ...]
    active: bool
    cursor: int
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event for a webhook; event_id: None for a test; status: the HTTP status of the last answer, None if none came;
    words: what went wrong last.
    """

    id: int
    webhook_id: int
    event_id: int | None
    state: DeliveryState
    attempts: int
    status: int | None
    words: str
    created_at: datetime
    next_at: datetime
    delivered_at: datetime | None


@prepared
def _of_workspace(workspace_id: int, webhook_id: int | None = None) -> Select[Any]:
    own = webhooks.c.workspace_id == workspace_id
    statement = select(webhooks).where(own, webhooks.c.active.is_(True)).order_by(webhooks.c.id)
    return statement if webhook_id is None else statement.where(webhooks.c.id == webhook_id)


def of_workspace(connection: Connection, workspace_id: int) -> tuple[Webhook, ...]:
    """The webhooks of a workspace, oldest first."""
    return tuple(_webhook(row) for row in _of_workspace.rows(connection, workspace_id))


def get(connection: Connection, workspace_id: int, webhook_id: int) -> Webhook | None:
    """A webhook of this workspace, or None."""
    row = _of_workspace.row(connection, workspace_id, webhook_id)
    return None if row is None else _webhook(row)


@prepared
def _all() -> Select[Any]:
    return select(webhooks).where(webhooks.c.active.is_(True)).order_by(webhooks.c.id)


def active(connection: Connection) -> tuple[Webhook, ...]:
    """The webhooks of all workspaces to which events are sent."""
    return tuple(_webhook(row) for row in _all.rows(connection))


@prepared
def _by_ids(ids: Sequence[int]) -> Select[Any]:
    return select(webhooks).where(among(webhooks.c.id, ids), webhooks.c.active.is_(True))


def by_ids(connection: Connection, ids: Sequence[int]) -> dict[int, Webhook]:
    """These webhooks by id, without deleted ones."""
    return {row.id: _webhook(row) for row in _by_ids.rows(connection, ids)}


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a webhook (the columns of the table); answers its id."""
    return int(connection.execute(insert(webhooks).values(values).returning(webhooks.c.id)).scalar_one())


def update_one(connection: Connection, webhook_id: int, values: Mapping[str, Any]) -> None:
    """Change columns of a webhook."""
    connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(**values))


def remove(connection: Connection, webhook_id: int) -> None:
    """Delete a webhook and its secret: nothing is sent there any more and nobody sees it; clear() deletes its rows."""
    update_one(connection, webhook_id, {"active": False, "encrypted_secret": b""})


@prepared
def _deleted() -> Select[Any]:
    return select(webhooks.c.id).where(webhooks.c.active.is_(False)).order_by(webhooks.c.id)


def deleted(connection: Connection) -> list[int]:
    """The ids of deleted webhooks whose rows clear() has not deleted yet."""
    return _deleted.values(connection)


@prepared
def _clear(webhook_id: int, most: int) -> Delete:
    oldest = (
        select(webhook_deliveries.c.id)
        .where(webhook_deliveries.c.webhook_id == webhook_id)
        .order_by(webhook_deliveries.c.id)
        .limit(most)
    )
    return delete(webhook_deliveries).where(webhook_deliveries.c.id.in_(oldest))


@prepared
def _clear_away(webhook_id: int) -> Delete:
    return delete(webhooks).where(webhooks.c.id == webhook_id)


def clear(connection: Connection, webhook_id: int, most: int) -> int:
    """Delete at most `most` deliveries of a deleted webhook, and its row with the last of them; answers how many."""
    gone = _clear.run(connection, webhook_id, most)
    if gone < most:
        _clear_away.run(connection, webhook_id)
    return gone


@prepared
def _new_events(webhook_id: int, workspace_id: int, after: int, limit: int) -> Select[Any]:
    known = select(webhook_deliveries.c.id).where(
        webhook_deliveries.c.webhook_id == webhook_id, webhook_deliveries.c.event_id == events.c.id
    )
    statement = select(*COLUMNS).where(events.c.workspace_id == workspace_id, events.c.id > after, ~known.exists())
    return statement.order_by(events.c.id).limit(limit)


def new_events(connection: Connection, webhook: Webhook, after: int, limit: int) -> list[Event]:
    """Events of the webhook's workspace after an id that are not queued for it, oldest first."""
    rows = _new_events.rows(connection, webhook.id, webhook.workspace_id, after, limit)
    return [event_record(row) for row in rows]


@prepared
def _set_cursor(webhook_id: int, cursor: int) -> Update:
    return update(webhooks).where(webhooks.c.id == webhook_id).values(cursor=cursor)


def set_cursor(connection: Connection, webhook_id: int, cursor: int) -> None:
    """Note that all events up to an id were looked at."""
    _set_cursor.run(connection, webhook_id, cursor)


def enqueue(connection: Connection, webhook_id: int, event_ids: Sequence[int | None], at: datetime) -> None:
    """Queue events, by id, for a webhook, each once; None stands for a test."""
    rows = [
        {
            "webhook_id": webhook_id,
            "event_id": event_id,
            "state": WAITING,
            "attempts": 0,
            "words": "",
            "created_at": at,
            "next_at": at,
        }
        for event_id in event_ids
    ]
    if rows:
        connection.execute(dialect_insert(connection, webhook_deliveries).on_conflict_do_nothing(), rows)


@prepared
def _due(at: datetime, limit: int) -> Select[Any]:
    active = select(webhooks.c.id).where(webhooks.c.active.is_(True))
    due = select(webhook_deliveries).where(
        IS_WAITING, webhook_deliveries.c.next_at <= at, webhook_deliveries.c.webhook_id.in_(active)
    )
    return due.order_by(webhook_deliveries.c.next_at).limit(limit)


def due(connection: Connection, at: datetime, limit: int) -> tuple[Delivery, ...]:
    """The deliveries that are to be sent now, the longest due first, at most `limit`."""
    return tuple(_delivery(row) for row in _due.rows(connection, at, limit))


_changing = Statement(
    lambda: (
        update(webhook_deliveries)
        .where(webhook_deliveries.c.id == placeholder(webhook_deliveries.c.id, "of_id"))
        .values(
            {
                name: placeholder(webhook_deliveries.c[name])
                for name in ("state", "attempts", "status", "words", "next_at", "delivered_at")
            }
        )
    )
)


def change(connection: Connection, delivery: Delivery) -> None:
    """Note the state of a delivery: all fields that an attempt changes."""
    values = {
        name: getattr(delivery, name) for name in ("state", "attempts", "status", "words", "next_at", "delivered_at")
    }
    _changing.run(connection, {**values, "of_id": delivery.id})


@prepared
def _events_by_ids(ids: Sequence[int]) -> Select[Any]:
    return select(*COLUMNS).where(among(events.c.id, ids))


def events_by_ids(connection: Connection, ids: Sequence[int]) -> dict[int, Event]:
    """These events by id; those that are gone are left out."""
    return {row.id: event_record(row) for row in _events_by_ids.rows(connection, ids)}


@prepared
def _deliveries(webhook_id: int, before: int | None, limit: int) -> Select[Any]:
    statement = (
        select(webhook_deliveries)
        .where(webhook_deliveries.c.webhook_id == webhook_id)
        .order_by(webhook_deliveries.c.id.desc())
        .limit(limit)
    )
    return statement if before is None else statement.where(webhook_deliveries.c.id < before)


def deliveries(connection: Connection, webhook_id: int, before: int | None, limit: int) -> tuple[Delivery, ...]:
    """The deliveries of a webhook, newest first, at most `limit`; before: only those with a smaller id."""
    return tuple(_delivery(row) for row in _deliveries.rows(connection, webhook_id, before, limit))


@prepared
def _forget(before: datetime, most: int) -> Delete:
    old = (
        select(webhook_deliveries.c.id)
        .where(webhook_deliveries.c.state != WAITING, webhook_deliveries.c.created_at < before)
        .limit(most)
    )
    return delete(webhook_deliveries).where(webhook_deliveries.c.id.in_(old))


def forget(connection: Connection, before: datetime, most: int) -> int:
    """Delete at most `most` deliveries that were queued before a time and wait no longer; answers how many."""
    return _forget.run(connection, before, most)


def _webhook(row: Any) -> Webhook:
    # The row has no seal. With a wrong level everything is sent, with actions that are no list nothing.
    level = row["level"] if row["level"] in LEVELS else LEVELS[0]
    actions = (
        tuple(action for action in row["actions"] if isinstance(action, str))
        if isinstance(row["actions"], list)
        else ()
    )
    return Webhook(**{**row, "level": level, "actions": actions})


def _delivery(row: Row) -> Delivery:
    """A delivery from its row, which has no seal: an unknown state counts as failed, so that nothing is sent."""
    return Delivery(**{**row, "state": row["state"] if row["state"] in (WAITING, DELIVERED) else FAILED})
