"""The overview: what needs somebody; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.web.console.visits import Visit, page


def overview(visit: Visit) -> Response:
    """The first page."""
    return visit.show("overview.html")


PAGES = (page("/", overview),)
