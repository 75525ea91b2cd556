"""Reads what calls of GitHub's API send: the token, pages; must decide nothing."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from starlette.responses import Response

from keyrack.model import Actor
from keyrack.web import bodies, forges
from keyrack.web.api import Call

PER_PAGE = 30
authenticate = partial(forges.authenticate, channel="github", schemes=("token", "bearer"))


def window(call: Call) -> tuple[int, int]:
    """The page and its size, at most 100; as at GitHub, a value that is not a number from 1 on counts as not sent."""
    page = bodies.number(call.query.get("page", "")) or 1
    size = bodies.number(call.query.get("per_page", "")) or PER_PAGE
    return min(page, bodies.LARGEST_ID // forges.MAX_PER_PAGE), min(size, forges.MAX_PER_PAGE)


def paged(call: Call, items: list[dict[str, Any]], total: int) -> Response:
    """A page of a list, with a Link header if there are other pages; total: entries on all pages."""
    page, size = window(call)
    last = max(1, -(-total // size))
    relations = {"prev": page - 1, "next": page + 1, "last": last, "first": 1}
    if page <= 1:
        del relations["prev"], relations["first"]
    if page >= last:
        del relations["next"], relations["last"]
    headers = {"Link": forges.link(call, relations.items(), size)} if relations else {}
    return forges.answered(call, items, headers=headers)


def caller(call: Call) -> Actor:
    """Who makes a call that needs no token: the user of the token that was sent, if any. Raises Refusal."""
    return call.actor if forges.is_anonymous(call.request) else authenticate(call.instance, call.request)


def moment(value: datetime) -> str:
    """A time as GitHub writes it, e.g. 2026-02-03T04:05:06Z."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")
