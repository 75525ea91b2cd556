"""Reads how people write how long something lasts: a span such as 12h, or an end such as 2026-12-24T18:00+01:00; must
know nothing that lasts.

Spans (decision 129) and times (decision 348) are read only here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from keyrack.model import LONGEST_SECONDS

EXAMPLE = "2026-12-24T18:00:00+01:00"
MAX_MONTHS = 12
"""Up to this number `m` may mean months."""
LONGEST_TEXT = 64

_SECOND, _MINUTE, _HOUR, _DAY, _WEEK = 1, 60, 3600, 86_400, 604_800
_LONGEST = LONGEST_SECONDS
_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), _SECOND),
    **dict.fromkeys(("min", "minute", "minutes"), _MINUTE),
    **dict.fromkeys(("h", "hour", "hours"), _HOUR),
    **dict.fromkeys(("d", "day", "days"), _DAY),
    **dict.fromkeys(("w", "week", "weeks"), _WEEK),
}
_CALENDAR = {
    **dict.fromkeys(("mo", "mon", "month", "months"), 30),
    **dict.fromkeys(("y", "yr", "year", "years", "a"), 365),
    **dict.fromkeys(("q", "quarter", "quarters"), 91),
}
_PART = re.compile(r"([0-9]{1,9}) ?([A-Za-z]+) ?")
_DAY_ALONE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))?"
)
_BEGINS_A_TIME = re.compile(r"[0-9]{4}[-/.]|[0-9]{8}(?:[Tt]|$)")
_FARTHEST = timedelta(hours=14)
"""No zone is farther from UTC."""
_NO_TIME = f"is no time; one is written like {EXAMPLE}, or like 2026-12-24T17:00:00Z in UTC"
_FORMS = f"a span such as 90min, 12h, 3d or 1w, or a time with its zone such as {EXAMPLE}"


class LifetimeError(ValueError):
    """A text is no lifetime; the message begins with a verb, to be put after a field's name."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A span that begins when something opens, or an end; exactly one of the two."""

    span: timedelta | None = None
    at: datetime | None = None

    def end(self, start: datetime) -> datetime:
        """The end, if it begins at start. Raises LifetimeError beyond the calendar's end."""
        if self.at is not None:
            return self.at
        assert self.span is not None
        try:
            return start + self.span
        except OverflowError:
            raise LifetimeError("is longer than the calendar goes") from None

    @property
    def words(self) -> str:
        """In words, such as "for 12h"."""
        if self.at is not None:
            return f"until {self.at:%Y-%m-%d %H:%M:%S} UTC"
        assert self.span is not None
        return f"for {written(self.span)}"


def read(text: str) -> Lifetime:
    """A span or an end; the end is in UTC. Raises LifetimeError with what to write instead."""
    text = text.strip()
    if not text or len(text) > LONGEST_TEXT:
        raise LifetimeError(f"takes {_FORMS}")
    if _BEGINS_A_TIME.match(text):
        return Lifetime(at=moment(text))
    return Lifetime(span=span(text))


def moment(text: str) -> datetime:
    """A time by RFC 3339 with its zone, as UTC; seconds may be left out. Raises LifetimeError with what to write."""
    return zoned(as_written(text))


def moment_or_day(text: str, *, end: bool = False) -> datetime:
    """As moment(), or a day such as 2026-12-24, which is a day in UTC; end: the end of that day. Raises
    LifetimeError.
    """
    text = text.strip()
    if _DAY_ALONE.fullmatch(text) is None:
        return moment(text)
    try:
        return as_written(f"{text}T00:00Z") + timedelta(days=1 if end else 0)
    except OverflowError:
        raise LifetimeError(_NO_TIME) from None


def moment_or_utc(text: str) -> datetime:
    """As moment(), or a day; without a zone it is in UTC. Raises LifetimeError."""
    at = as_written(text)
    return zoned(at if at.tzinfo else at.replace(tzinfo=UTC))


def zoned(at: datetime) -> datetime:
    """A time as UTC. Raises LifetimeError for one without a zone, or with an offset that no zone has."""
    offset = at.utcoffset()
    if offset is None:
        shown = at.isoformat(timespec="seconds")
        raise LifetimeError(f"names no zone: write {shown}Z for UTC, or {shown}+01:00 with your own offset")
    if abs(offset) > _FARTHEST:
        raise LifetimeError(f"is farther from UTC than any zone, which is 14 hours; write it like {EXAMPLE}")
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise LifetimeError(_NO_TIME) from None


def as_written(text: str) -> datetime:
    """A time in the shape of RFC 3339, with or without its zone; a day is its midnight, without a zone."""
    # datetime.fromisoformat also takes weeks, days of the year, hours alone and 24:00, and each Python other parts of
    # ISO 8601. People who write these by mistake mean another time than the one that it reads.
    text = text.strip()
    if _DAY_ALONE.fullmatch(text):
        text += "T00:00"
    match = _TIME.fullmatch(text) if len(text) <= LONGEST_TEXT else None
    if match is None:
        raise LifetimeError(_NO_TIME)
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    if hour == 24:
        raise LifetimeError(f"takes midnight as 00:00 of the day that begins, like {EXAMPLE[:11]}00:00:00Z")
    if second == 60:
        raise LifetimeError(f"names a leap second, which is not counted here; write it with :59, like {EXAMPLE}")
    fraction, utc, sign, hours, minutes = match.groups()[6:]
    zone = UTC if utc else None
    try:
        if sign:
            if int(minutes) > 59:
                raise ValueError
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            zone = timezone(-offset if sign == "-" else offset)
        return datetime(year, month, day, hour, minute, second, int((fraction or "0")[:6].ljust(6, "0")), zone)
    except ValueError:
        raise LifetimeError(_NO_TIME) from None


def span(text: str) -> timedelta:
    """A span such as 90min, 12h, 3d, 1w or 1h30m. Raises LifetimeError with what to write instead.

    `m` is minutes where it cannot be months: after hours (1h30m), or in more than MAX_MONTHS (90m).
    """
    total = 0
    smallest = 0
    place = 0
    text = text.strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        raise LifetimeError(f"names no unit: write {text}min, {text}h or {text}d")
    if re.match(r"[0-9]*[.,][0-9]", text):
        raise LifetimeError("takes whole numbers: write 90min for one hour and a half")
    while place < len(text):
        part = _PART.match(text, place)
        if part is None:
            raise LifetimeError(f"takes {_FORMS}")
        size = _size(int(part[1]), part[2], after=smallest)
        if smallest and size >= smallest:
            raise LifetimeError("names larger units first and each once, such as 1d12h or 1h30min")
        total += int(part[1]) * size
        smallest = size
        place = part.end()
    if total == 0:
        raise LifetimeError(f"is no time at all; it takes {_FORMS}")
    if total > _LONGEST:
        raise LifetimeError("is longer than a hundred years; leave it out for no end")
    return timedelta(seconds=total)


def _size(number: int, unit: str, *, after: int) -> int:
    """The seconds of a unit; after: of the unit before it, 0 for none."""
    if unit == "m" and (number > MAX_MONTHS or after == _HOUR):
        return _MINUTE
    if unit in ("m", "M"):
        raise LifetimeError(
            f"can mean minutes or months in {number}{unit}: write {number}min for minutes, "
            f"or {number * 30}d for months, counted in days"
        )
    name = unit if len(unit) > 1 else unit.lower()
    if name.lower() in _CALENDAR:
        days = number * _CALENDAR[name.lower()]
        raise LifetimeError(f"takes no months or years, as they differ in length: write {days}d, or the end itself")
    if name not in _UNITS:
        raise LifetimeError(f"takes the units s, min, h, d and w: {_FORMS}")
    return _UNITS[name]


def written(length: timedelta) -> str:
    """A span as span() reads it, to the second."""
    left = int(length.total_seconds())
    parts = []
    for name, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE), ("s", _SECOND)):
        if left >= size:
            parts.append(f"{left // size}{name}")
            left %= size
    return "".join(parts) or "0s"
