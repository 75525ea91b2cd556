"""The stream by which an open page hears that something moved; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from starlette.responses import Response

from keyrack.core import watching
from keyrack.web import bodies
from keyrack.web.console.live import LIVE, STREAM, Live
from keyrack.web.console.visits import Visit, page


class HostAnswer(Protocol):
    """Something that a host has said, or has not."""

    @property
    def server_id(self) -> int:
        """Which host."""

    @property
    def done(self) -> bool:
        """Whether it said so."""


def hosts_awaited(receipts: Iterable[HostAnswer]) -> str:
    """What a page with receipts watches: the hosts whose receipts are still to come; "" for none."""
    waiting = [str(one.server_id) for one in receipts if not one.done][: watching.MAX_SERVERS]
    return f"host={','.join(waiting)}" if waiting else ""


def stream(visit: Visit) -> Response:
    """Tell when hosts, what a person may reach or requests move: `host=1,2`, `person=NAME`, `requests=1`."""
    watched = watching.watch(
        visit.instance,
        visit.actor,
        servers=(bodies.identifier(text) for text in visit.query.get("host", "").split(",") if text),
        user=visit.query.get("person") or None,
        requests=bool(visit.query.get("requests")),
    )
    if not watched.is_anything:
        return Response(status_code=204)
    live: Live = getattr(visit.request.state, LIVE)
    return live.stream(visit.request.state.visitor, watched)


PAGES = (page(STREAM, stream),)
