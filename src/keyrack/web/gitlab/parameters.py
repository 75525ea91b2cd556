"""Reads what calls of GitLab's API send: the token, pages, fields of a new key; must decide nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from keyrack.core import lifetimes
from keyrack.core.instance import Instance
from keyrack.core.lifetimes import LifetimeError
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor
from keyrack.web import bodies, forges
from keyrack.web.api import Call

HEADER = "private-token"
SUDO = "sudo"
USAGES = ("auth", "auth_and_signing")
MAX_COUNTED = 10_000
"""For longer lists GitLab gives no totals."""


class InvalidParameter(Refusal):
    """The refusal of a parameter that is missing or wrong, in GitLab's words."""

    def __init__(self, words: str) -> None:
        super().__init__(Kind.INVALID, "parameter", words)


def authenticate(instance: Instance, request: Request) -> Actor:
    """The user of the token. Raises Refusal, also for GitLab's sudo, with which an administrator acts as another user:
    if it were ignored, the other user's key would become the administrator's.
    """
    if SUDO in request.headers or SUDO in request.query_params:
        raise _as_nobody_else()
    return forges.authenticate(instance, request, channel="gitlab", schemes=("bearer",), header=HEADER)


def fields(request: Request, content: bytes) -> tuple[dict[str, Any], bool]:
    """The fields of a body, and whether it was a form; also one in parts, as in GitLab's examples with curl --form.
    Raises Refusal, also for sudo, which GitLab accepts in a body too.
    """
    if bodies.media_type(request) == bodies.PARTS:
        sent, strings = bodies.parts(request, content), True
    else:
        sent, strings = forges.fields(request, content)
    if SUDO in sent:
        raise _as_nobody_else()
    return sent, strings


def _as_nobody_else() -> Refusal:
    words = "Nobody acts as another user here. Name the user in the path, as in POST /users/ID/keys."
    return Refusal(Kind.FORBIDDEN, "sudo", words)


class NewKey(NamedTuple):
    """The fields of a new key."""

    title: Any
    key: Any
    expires_at: datetime | None


def new_key(call: Call) -> NewKey:
    """The fields of a new key, of the body or the query. Raises Refusal."""
    sent = {name: call.query[name] for name in call.query} | dict(call.body)
    lacking = [f"{name} is missing" for name in ("title", "key") if sent.get(name) is None]
    if lacking:
        raise InvalidParameter(", ".join(lacking))
    usage = sent.get("usage_type")
    if usage == "signing":
        # Nothing here verifies signatures, and a key for signing alone must open nothing.
        raise invalid("usage_type", "Keys for signing alone are not taken here.")
    if usage not in (None, "", *USAGES):
        raise InvalidParameter("usage_type does not have a valid value")
    return NewKey(sent["title"], sent["key"], _end(sent.get("expires_at")))


def _end(value: Any) -> datetime | None:
    """An end as GitLab accepts it: a time or a day, in UTC if it has no zone; None for none. Raises Refusal."""
    if value in (None, ""):
        return None
    try:
        return lifetimes.moment_or_utc(value if isinstance(value, str) else "")
    except LifetimeError:
        raise InvalidParameter("expires_at is invalid") from None


def window(call: Call) -> tuple[int, int]:
    """The page, from 1, and its size, at most 100. Raises Refusal."""
    numbers = []
    for name, default in (("page", 1), ("per_page", 20)):
        value = bodies.number(call.query.get(name, "") or str(default))
        if value is None:
            raise InvalidParameter(f"{name} is invalid")
        if value < 1:
            raise InvalidParameter(f"{name} does not have a valid value")
        numbers.append(value)
    page, size = numbers
    return min(page, bodies.LARGEST_ID // forges.MAX_PER_PAGE), min(size, forges.MAX_PER_PAGE)


def paged(call: Call, items: list[dict[str, Any]], total: int) -> Response:
    """A page of a list with GitLab's headers; total: entries on all pages."""
    page, size = window(call)
    last = max(1, -(-total // size))
    relations = {"first": 1, "prev": page - 1, "next": page + 1, "last": last}
    if page <= 1:
        del relations["prev"]
    if page >= last:
        del relations["next"]
    if total > MAX_COUNTED:
        del relations["last"]
    headers = {
        "Link": forges.link(call, relations.items(), size),
        "X-Page": str(page),
        "X-Per-Page": str(size),
        "X-Next-Page": str(relations.get("next", "")),
        "X-Prev-Page": str(relations.get("prev", "")),
    }
    if total <= MAX_COUNTED:
        headers |= {"X-Total": str(total), "X-Total-Pages": str(last)}
    return forges.answered(call, items, headers=headers)


def caller(call: Call) -> Actor:
    """Who makes a call that needs no token: the user of the token that was sent, if any. Raises Refusal."""
    if forges.is_anonymous(call.request, HEADER):
        return call.actor
    return authenticate(call.instance, call.request)


def moment(value: datetime) -> str:
    """A time as GitLab writes it, e.g. 2026-02-03T04:05:06.789Z."""
    return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
