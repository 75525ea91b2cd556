"""Questions about requests for access, their approvals and the rules for them; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, or_, select

from keyrack.model import Grant, Page, Window, span_of
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.keys.grants import grant_of
from keyrack.store.rows import inserted, paged
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import (
    IS_OPEN,
    IS_PENDING,
    access_request_approvals,
    access_requests,
    grants,
    request_rules,
    server_tags,
    servers,
)

PENDING, APPROVED, DENIED, CANCELLED, LAPSED = "pending", "approved", "denied", "cancelled", "lapsed"
ENDED = "ended"
STATES = (PENDING, APPROVED, DENIED, CANCELLED, LAPSED, ENDED)


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A request to log in for a while. seconds, until: how long from the approval on, or until when; the other is None.

    approvers: how many must approve; pending_until: when it lapses if nobody decides; grant_id: the grant that it got;
    word: the words given with the decision.
    """

    id: int
    workspace_id: int
    user_id: int
    server_id: int | None
    tag: str | None
    system_user: str
    seconds: int | None
    until: datetime | None
    reason: str
    state: str
    approvers: int
    created_at: datetime
    pending_until: datetime
    decided_at: datetime | None
    decided_by: str | None
    grant_id: int | None
    word: str | None

    @property
    def span(self) -> timedelta | None:
        """How long access lasts from the approval on; None if it has an end (until) instead."""
        return None if self.seconds is None else span_of(self.seconds)


@dataclass(frozen=True, slots=True)
class RequestRule:
    """How many must approve the requests that it is for, and how long those may last at most. None: any server, tag,
    account or length.
    """

    id: int
    workspace_id: int
    name: str
    server_id: int | None
    tag: str | None
    system_user: str | None
    approvers: int
    longest_seconds: int | None
    created_at: datetime

    @property
    def max_duration(self) -> timedelta | None:
        """The longest span that may be asked for, or None."""
        return None if self.longest_seconds is None else span_of(self.longest_seconds)


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval of a request. approver: "user 5" or "operator NAME"; user_id: None for an operator."""

    request_id: int
    approver: str
    user_id: int | None
    approved_at: datetime


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a request (the columns of the table); answers its id."""
    return inserted(connection, access_requests, values)


@prepared
def _one(workspace_id: int, request_id: int) -> Select[Any]:
    return select(access_requests).where(
        access_requests.c.workspace_id == workspace_id, access_requests.c.id == request_id
    )


def get(connection: Connection, workspace_id: int, request_id: int) -> AccessRequest | None:
    """A request of this workspace, or None."""
    row = _one.row(connection, workspace_id, request_id)
    return None if row is None else _request(row)


def is_sound(connection: Connection, workspace_id: int, request_id: int) -> bool:
    """Whether a request is as Keyrack wrote it; no other may be approved."""
    row = _one.row(connection, workspace_id, request_id)
    return row is not None and sealed.sound(connection, access_requests, row)


@paged
def _page(workspace_id: int, state: str | None, user_id: int | None) -> Select[Any]:
    statement = select(access_requests).where(access_requests.c.workspace_id == workspace_id)
    if state is not None:
        statement = statement.where(access_requests.c.state == state)
    if user_id is not None:
        statement = statement.where(access_requests.c.user_id == user_id)
    return statement.order_by(access_requests.c.id.desc())


def page(
    connection: Connection, workspace_id: int, window: Window, *, state: str | None, user_id: int | None
) -> Page[AccessRequest]:
    """A page of a workspace's requests, newest first; state, user_id: only those in a state, or of a user."""
    return _page.page(connection, _request, window, workspace_id, state, user_id)


@prepared
def _pending_of_user(user_id: int, most: int) -> Select[Any]:
    mine = access_requests.c.user_id == user_id
    return select(access_requests.c.id).where(mine, access_requests.c.state == PENDING).limit(most)


def count_pending(connection: Connection, user_id: int, most: int) -> int:
    """How many requests of a user are pending, counted up to `most`."""
    return len(_pending_of_user.values(connection, user_id, most))


@prepared
def _nth_newest(user_id: int, number: int) -> Select[Any]:
    mine = select(access_requests.c.created_at).where(access_requests.c.user_id == user_id)
    return mine.order_by(access_requests.c.id.desc()).offset(number - 1).limit(1)


def asked_since(connection: Connection, user_id: int, at: datetime, number: int) -> bool:
    """Whether a user made at least `number` requests after an instant."""
    oldest = _nth_newest.value(connection, user_id, number)
    return oldest is not None and oldest > at


@prepared
def _pending_rows(user_id: int) -> Select[Any]:
    mine = (access_requests.c.user_id == user_id, access_requests.c.state == PENDING)
    statement = select(access_requests, servers.c.name.label("server_name"))
    return (
        statement.outerjoin(servers, servers.c.id == access_requests.c.server_id)
        .where(*mine)
        .order_by(access_requests.c.id)
    )


def pending_rows(connection: Connection, user_id: int) -> list[Row]:
    """The rows of a user's pending requests, with server_name beside them."""
    return _pending_rows.rows(connection, user_id)


def pending_alike(connection: Connection, asked: Mapping[str, Any], at: datetime) -> AccessRequest | None:
    """A user's oldest pending request for the same, or None; asked: columns of the table, user_id among them. Requests
    that others altered, and those that have lapsed by `at`, do not count.
    """
    for row in _pending_rows.rows(connection, asked["user_id"]):
        alike = row.pending_until > at and all(row[name] == value for name, value in asked.items())
        if alike and is_sound(connection, row.workspace_id, row.id):
            return get(connection, row.workspace_id, row.id)
    return None


def cancel_pending(connection: Connection, user_id: int, at: datetime, by: str) -> None:
    """Cancel a user's pending requests; by: the name of whoever decided so."""
    pending = (access_requests.c.user_id == user_id, access_requests.c.state == PENDING)
    values = {"state": CANCELLED, "decided_at": at, "decided_by": by}
    sealed.change(connection, access_requests, *pending, values=values)


@prepared
def _over(at: datetime, limit: int) -> Select[Any]:
    statement = select(access_requests.c.id, access_requests.c.workspace_id, *seals.columns(grants, "grant_"))
    gone = or_(grants.c.id.is_(None), grants.c.expires_at <= at)
    return (
        statement.outerjoin(grants, grants.c.id == access_requests.c.grant_id)
        .where(IS_OPEN, access_requests.c.grant_id > 0, gone)
        .order_by(access_requests.c.grant_id)
        .limit(limit)
    )


def over(connection: Connection, at: datetime, limit: int) -> list[tuple[int, Grant | None]]:
    """Approved requests, by id, whose grant has ended, with the grant, or was deleted, with None; at most `limit`."""
    return [
        (row.id, None if row.grant_id is None else grant_of(seals.part(row, grants, "grant_")))
        for row in _over.rows(connection, at, limit)
    ]


@prepared
def _lapsing(at: datetime, limit: int) -> Select[Any]:
    due = (IS_PENDING, access_requests.c.pending_until <= at)
    return select(access_requests).where(*due).order_by(access_requests.c.pending_until).limit(limit)


def lapsing(connection: Connection, at: datetime, limit: int) -> tuple[AccessRequest, ...]:
    """Pending requests that nobody decided in time, at most `limit`, the longest overdue first."""
    return tuple(_request(row) for row in _lapsing.rows(connection, at, limit))


def set_state(connection: Connection, request_id: int, **values: Any) -> None:
    """Change columns of a request."""
    sealed.change(connection, access_requests, sealed.row_of(request_id), values=values)


def approve(connection: Connection, request_id: int, approver: str, user_id: int | None, at: datetime) -> bool:
    """Note an approval; False where this approver gave it before."""
    values = {"request_id": request_id, "approver": approver, "user_id": user_id, "approved_at": at}
    return sealed.insert_new(connection, access_request_approvals, values)


@prepared
def _approvals(request_ids: Iterable[int]) -> Select[Any]:
    statement = select(access_request_approvals).where(among(access_request_approvals.c.request_id, request_ids))
    return statement.order_by(access_request_approvals.c.approved_at, access_request_approvals.c.approver)


def approvals(connection: Connection, request_ids: Iterable[int]) -> dict[int, list[Approval]]:
    """By request its approvals that are as Keyrack wrote them, oldest first; requests without any are left out."""
    by_request: dict[int, list[Approval]] = {}
    for row in _approvals.rows(connection, tuple(request_ids)):
        if sealed.sound(connection, access_request_approvals, row):
            by_request.setdefault(row.request_id, []).append(Approval(**seals.unsealed(row)))
    return by_request


@prepared
def _rules(workspace_id: int) -> Select[Any]:
    statement = select(request_rules).where(request_rules.c.workspace_id == workspace_id)
    return statement.order_by(request_rules.c.name)


def rules(connection: Connection, workspace_id: int) -> tuple[RequestRule, ...]:
    """All rules of a workspace, by name. One that others altered counts too: a rule only asks for more approvals."""
    return tuple(RequestRule(**seals.unsealed(row)) for row in _rules.rows(connection, workspace_id))


def put_rule(connection: Connection, values: Mapping[str, Any]) -> bool:
    """Insert a rule, or change the one of its name; answers whether it is new."""
    for rule in rules(connection, values["workspace_id"]):
        if rule.name == values["name"]:
            changed = {name: value for name, value in values.items() if name != "created_at"}
            sealed.change(connection, request_rules, sealed.row_of(rule.id), values=changed)
            return False
    inserted(connection, request_rules, values)
    return True


def remove_rule(connection: Connection, rule_id: int) -> None:
    """Delete a rule."""
    sealed.remove(connection, request_rules, sealed.row_of(rule_id))


@prepared
def _tags_beside(workspace_id: int, tag: str) -> Select[Any]:
    having = (
        select(server_tags.c.server_id)
        .join(servers, servers.c.id == server_tags.c.server_id)
        .where(server_tags.c.tag == tag, servers.c.workspace_id == workspace_id)
    )
    return select(server_tags.c.tag).distinct().where(server_tags.c.server_id.in_(having))


@prepared
def _tags_of(server_id: int) -> Select[Any]:
    return select(server_tags.c.tag).where(server_tags.c.server_id == server_id)


def tags_of_server(connection: Connection, server_id: int) -> frozenset[str]:
    """The tags of a server."""
    return frozenset(_tags_of.values(connection, server_id))


def tags_beside(connection: Connection, workspace_id: int, tag: str) -> frozenset[str]:
    """All tags of the servers of a workspace that have `tag`, and `tag` itself."""
    return frozenset((*_tags_beside.values(connection, workspace_id, tag), tag))


def _request(row: Row) -> AccessRequest:
    return AccessRequest(**seals.unsealed(row))
