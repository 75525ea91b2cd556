"""Applies the rate limit to every dialect and to hosts; must refuse only by Refusal, which the dialect shows."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response

from keyrack.core.instance import Instance
from keyrack.core.people.throttle import network
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor
from keyrack.web.api import Dialect, address_of
from keyrack.web.rate_limit import RateLimit


def with_rate_limit(dialect: Dialect, limit: RateLimit) -> Dialect:
    """The same dialect with a limit of requests: by token or access key, and by address for those without."""

    def authenticate(instance: Instance, request: Request) -> Actor:
        try:
            actor = dialect.authenticate(instance, request)
        except Refusal:
            # Failures count against where they come from, as there is nobody else.
            count(limit, request, client_network(request))
            raise
        count(limit, request, ("user", actor.user_id, actor.token_id, actor.token_name))
        return actor

    def greet(request: Request) -> None:
        count(limit, request, client_network(request))

    def finish(request: Request, actor: Actor | None, response: Response) -> None:
        dialect.finish(request, actor, response)
        if dialect.shows_quota:
            quota = request.scope["state"].get("quota") or limit.peek(client_network(request))
            # Not through response.headers, which searches all of them before it adds one.
            response.raw_headers += [
                (b"x-ratelimit-limit", b"%d" % quota.limit),
                (b"x-ratelimit-remaining", b"%d" % quota.remaining),
            ]
            if dialect.shows_reset:
                response.raw_headers.append((b"x-ratelimit-reset", b"%d" % int(time.time() + quota.resets)))

    return replace(dialect, authenticate=authenticate, greet=greet, finish=finish)


def count(limit: RateLimit, request: Request, caller: Hashable) -> None:
    """Count one request of a caller. Raises Refusal THROTTLED when it is one too many."""
    quota = request.scope["state"]["quota"] = limit.take(caller)
    if quota.wait:
        words = f"Too many requests; at most {quota.limit} a minute are answered. Try again in {quota.wait} seconds."
        raise Refusal(Kind.THROTTLED, "too-many-requests", words, retry_after=quota.wait)


def client_network(request: Request) -> Hashable:
    """What counts as one address: of IPv6 the whole network that one customer gets, as its addresses are endless."""
    return ("address", network(address_of(request)))
