"""The audit log as sentences by day, with filters, refusals visible, and an export; must hold no rule of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import chain as chain_of
from itertools import groupby
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response, StreamingResponse

from keyrack.core.audit import chain, events, standing
from keyrack.core.keys import receipts
from keyrack.errors import Kind, Refusal
from keyrack.model import Event, EventFilter
from keyrack.model import Page as Piece
from keyrack.protocol.audit_tree import CheckpointProblem
from keyrack.web.console.pages_live import hosts_awaited
from keyrack.web.console.visits import Visit, page

PER_PAGE = 100
FILTERS = ("q", "person", "host", "key", "kind", "since", "until")
WORDS = {
    "access": "grants and requests",
    "people": "people and groups",
    "sessions": "logins and sessions",
    "workspace": "the workspace, webhooks and this log",
}
"""Words for the kinds of events whose names do not say enough."""
KINDS = (
    ("", "everything"),
    (events.REFUSED, "what was refused"),
    (events.ALARM, "alarms"),
    *((kind, WORDS.get(kind, kind)) for kind in events.KINDS),
)


def _moment(visit: Visit, name: str, *, end: bool = False) -> datetime | None:
    text = visit.query.get(name, "").strip()
    return events.moment(text, field=name, end=end) if text else None


def _events(visit: Visit, before: int | None, limit: int) -> Iterator[Piece[Event]]:
    """What the filters leave, page by page; the first one is there once it is asked for."""
    host = visit.query.get("host", "").strip()
    asked = EventFilter(
        concerning=events.server_named(visit.instance, visit.actor, host) if host else None,
        search=visit.query.get("q", "").strip(),
        person=visit.query.get("person", "").strip(),
        key=visit.query.get("key", "").strip(),
        kind=visit.query.get("kind", ""),
        since=_moment(visit, "since"),
        until=_moment(visit, "until", end=True),
        before=before,
    )
    return events.every(visit.instance, visit.actor, asked, limit=limit)


def activity(visit: Visit) -> Response:
    """What was done and refused, the newest first."""
    refused = None
    before = visit.query.get("before", "")
    shown: tuple[Event, ...] = ()
    onward: tuple[Any, ...] | None = None
    try:
        first = next(_events(visit, int(before) if before.isdecimal() and len(before) < 16 else None, PER_PAGE))
        shown, onward = first.items, first.after
    except Refusal as refusal:
        if refusal.kind not in (Kind.INVALID, Kind.MISSING):
            raise
        refused = refusal
    kept = {name: visit.query[name] for name in FILTERS if visit.query.get(name)}
    further = "" if onward is None else f"/activity?{urlencode({**kept, 'before': onward[0]})}"
    return visit.show(
        "activity.html",
        days=[(day, list(some)) for day, some in groupby(shown, key=_day)],
        filters=kept,
        kinds=KINDS,
        wrong=refused,
        proven=_proven(visit),
        first=f"/activity?{urlencode(kept)}" if before else "",
        next=further,
        week=visit.now - standing.KEPT,
        # Set for a page that is not full though more follows: that many events were searched.
        looked_through=events.PAGE_SCAN_LIMIT if further and len(shown) < PER_PAGE else 0,
    )


def _proven(visit: Visit) -> tuple[int, datetime] | str:
    """How many events the last signed checkpoint covers, and when it was signed; or what is wrong with it."""
    try:
        checkpoint = chain.read_signed(visit.instance, chain.checkpoint(visit.instance, visit.actor))
    except Refusal as refusal:
        return "" if refusal.kind is Kind.MISSING else refusal.message
    except CheckpointProblem as problem:
        return f"The chain of the log is broken: {problem}."
    return checkpoint.size, datetime.fromtimestamp(checkpoint.at, UTC)


def _day(event: Event) -> date:
    return event.at.astimezone(UTC).date()


def event(visit: Visit) -> Response:
    """How far hosts are with what an event changed."""
    kept = receipts.of_event(visit.instance, visit.actor, visit.number("id"))
    given: dict[str, Any] = {"receipts": kept.of, "obeyed": "obeys it"}
    if visit.is_part:
        return visit.show("_receipts.html", **given)
    number = visit.number("id")
    what = events.get(visit.instance, visit.actor, number) if visit.may("events:read") else None
    return visit.show("event.html", **given, number=number, what=what, waiting=hosts_awaited(kept.of))


def export(visit: Visit) -> Response:
    """All that the filters leave, one JSON object a line, the newest first."""
    pages = _events(visit, None, events.PAGE_SIZE)
    first = next(pages)  # asked before anything is sent, so that a refusal can still be answered

    def lines() -> Iterator[str]:
        for piece in chain_of((first,), pages):
            for one in piece.items:
                yield json.dumps(_plain(one), ensure_ascii=False) + "\n"

    headers = {"Content-Disposition": 'attachment; filename="activity.jsonl"'}
    return StreamingResponse(lines(), media_type="application/jsonl; charset=utf-8", headers=headers)


def _plain(one: Event) -> dict[str, object]:
    return {
        "id": one.id,
        "at": one.at.isoformat(),
        "actor": one.actor_name,
        "token": one.token_name,
        "address": one.address,
        "channel": one.channel,
        "action": one.action,
        "outcome": one.outcome,
        "reason": one.reason,
        "summary": one.summary,
        "level": one.level,
        "details": dict(one.details),
    }


PAGES = (
    page("/activity", activity, "events:read"),
    page("/activity.jsonl", export, "events:read"),
    page("/activity/{id}", event, "servers:read"),
)
