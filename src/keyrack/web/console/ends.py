"""The end that a form names: a span, or a day and time in the zone of whoever looks; must hold no other rule."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from markupsafe import Markup

from keyrack.core import lifetimes, validation
from keyrack.core.keys.rehearsal import Rehearsed
from keyrack.errors import invalid
from keyrack.web.console import templates
from keyrack.web.console.visits import Asked, Visit

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


def asked(
    visit: Visit,
    title: str,
    before: datetime | None,
    words: Sequence[str],
    back: str,
    done: Rehearsed[Any] | None,
    *,
    what: str = "",
) -> Asked:
    """What another end does, shown before it is set: the end of the form, as a fixed time.

    before: the end until now; words: what else there is to say; done: a rehearsal of it or None; what: that which ends,
    where the title does not name it. Raises Refusal INVALID.
    """
    at = validation.end(visit.now, None, duration=chosen(visit))
    if at is None:
        raise invalid("ends", "Say when it ends; what has an end once keeps one.")
    at = at.astimezone(UTC).replace(microsecond=0)
    was = Markup("Until now it ends {}.").format(templates.shown(before)) if before else "It has no end until now."
    then = Markup("It is to end {}, and opens nothing from then on.").format(templates.shown(at))
    fixed = {"ends": DATE, "until": at.strftime("%Y-%m-%dT%H:%M:%S"), "zone": "UTC"}
    said = [*([f"{what}."] if what else ()), was, then, *words]
    return Asked(title, said, "Set the end", back, done, fixed, takes=False)


def seen(end: datetime | None) -> str:
    """What a form's field SEEN holds of an end."""
    return templates.iso(end) if end else ""


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
