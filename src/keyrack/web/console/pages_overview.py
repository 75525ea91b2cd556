"""The overview: what needs somebody, or where one can log in oneself; must hold no rule of its own."""

from __future__ import annotations

from datetime import datetime

from markupsafe import Markup
from starlette.responses import Response

from keyrack.core.audit import overview as core
from keyrack.core.hosts import server_list
from keyrack.core.keys import user_keys, who_can
from keyrack.web.console import charts
from keyrack.web.console.pages_alarms import place_of
from keyrack.web.console.visits import Visit, page

MAX_WAYS = 1000
Drawn = tuple[str, tuple[str, ...], charts.Numbers, Markup]
"""A chart: its title, the heads of the table beside it, the rows of both, and the drawing."""


def overview(visit: Visit) -> Response:
    """The first page."""
    if not visit.may("access:read"):
        ways = who_can.find(visit.instance, visit.actor, user=visit.actor.name, limit=MAX_WAYS)
        own = visit.may(user_keys.READ)
        keys = user_keys.find(visit.instance, visit.actor, limit=200).items if own else ()
        return visit.show("my_overview.html", ways=ways.items, more=ways.next is not None, keys=keys, own=own)
    state = core.get(visit.instance, visit.actor)
    return visit.show(
        "overview.html", state=state, place_of=place_of, charts=_charts(state), first_steps=_is_new(visit)
    )


def _is_new(visit: Visit) -> bool:
    """Whether there is no host yet, for somebody who may add the first."""
    return visit.may("servers:write") and not server_list.find(visit.instance, visit.actor, limit=1).items


def _charts(state: core.Overview) -> list[Drawn]:
    """The charts; one without numbers is left out."""

    def day(at: datetime) -> str:
        return f"{at:%-d %b}"

    events = f", of the newest {core.NEWEST:,} events" if len(state.days) < core.DAYS else ""
    hosts = f", of {len(state.behind):,} hosts" if state.behind and state.behind[0].hosts > len(state.behind) else ""
    over_days: list[tuple[str, str, charts.Numbers]] = [
        ("Logins a day", "Logins:number", tuple((day(at), number) for at, number in state.logins)),
        (f"Changes a day{events}", "Changes:number", tuple((day(at), done) for at, done, _ in state.days)),
        (f"Refusals a day{events}", "Refusals:number", tuple((day(at), refused) for at, _, refused in state.days)),
    ]
    parts: list[tuple[str, tuple[str, ...], charts.Numbers]] = [
        (f"Hosts behind by{hosts}", ("Behind by", "Hosts:number"), state.lags),
        ("Hosts obeyed within", ("Within", "Changes:number"), state.delays),
        ("Keys by type", ("Type", "Keys:number"), state.keys.types),
        ("Keys by age", ("Age", "Keys:number"), state.keys.ages),
    ]
    drawn: list[Drawn] = [
        (title, ("Day", head), rows, charts.columns(title, rows))
        for title, head, rows in over_days
        if any(number for _, number in rows)
    ]
    drawn += [
        (title, heads, rows, charts.bars(title, rows))
        for title, heads, rows in parts
        if any(number for _, number in rows)
    ]
    return drawn


PAGES = (page("/", overview),)
