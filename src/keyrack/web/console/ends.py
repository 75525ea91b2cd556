"""The end that a form names: a span, or a day and time in the zone of whoever looks; must hold no other rule."""

from __future__ import annotations

from datetime import UTC
from zoneinfo import ZoneInfo

from keyrack.core import lifetimes
from keyrack.errors import invalid
from keyrack.web.console.visits import Visit

DATE = "date"
ENDS = (
    ("", "never"),
    ("1h", "1 h"),
    ("12h", "12 h"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("90d", "90 days"),
    (DATE, "a day and time"),
)


def chosen(visit: Visit) -> str | None:
    """The end of the form as the core takes it: a span, a time in UTC, or None for no end. Raises Refusal INVALID.

    A time that the zone's clocks show twice, or never, names no instant and is refused.
    """
    ends = visit.form.text("ends")
    if ends != DATE:
        return ends or None
    named = visit.form.text("zone") or "UTC"
    try:
        at = lifetimes.as_written(visit.form.text("until"))
        zone = ZoneInfo(named)
        first, second = at.replace(tzinfo=zone, fold=0), at.replace(tzinfo=zone, fold=1)
        instants = first.astimezone(UTC), second.astimezone(UTC)
        there = instants[0].astimezone(zone).replace(tzinfo=None) == at
    except (ValueError, OverflowError, OSError, KeyError):
        raise invalid("until", "Say on which day and at what time it ends, in a zone such as Europe/Berlin.") from None
    if at.tzinfo is not None:
        raise invalid("until", "Say the day and the time alone; the zone is named beside it.")
    if instants[0] != instants[1]:
        often = "twice that day" if there else "never that day"
        raise invalid("until", f"The clocks of {named} show this time {often}, as they are changed; say another one.")
    return instants[0].isoformat()
