"""How people write how long something lasts: a span such as 12h, or an end such as 2026-12-24T18:00+01:00; must know
no noun.

This is the only place that reads spans (decision 129) and times (decision 348).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from keyrack.model import LONGEST_SECONDS

EXAMPLE = "2026-12-24T18:00:00+01:00"
MOST_MONTHS = 12
"""Up to so many, `m` may be meant as months."""
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
    """What is no lifetime; the words begin with a verb, so that the name of a field goes before them."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A span that begins once something opens, or an end; one of both."""

    span: timedelta | None = None
    at: datetime | None = None

    def end(self, start: datetime) -> datetime:
        """When it ends, if it begins at start. Raises LifetimeError where the calendar ends before."""
        if self.at is not None:
            return self.at
        assert self.span is not None
        try:
            return start + self.span
        except OverflowError:
            raise LifetimeError("is longer than the calendar goes") from None

    @property
    def words(self) -> str:
        """As people read it."""
        if self.at is not None:
            return f"until {self.at:%Y-%m-%d %H:%M:%S} UTC"
        assert self.span is not None
        return f"for {written(self.span)}"


def read(text: str) -> Lifetime:
    """A span or an end, as somebody wrote it; an end is in UTC. Raises LifetimeError with what to write instead."""
    text = text.strip()
    if not text or len(text) > LONGEST_TEXT:
        raise LifetimeError(f"takes {_FORMS}")
    if _BEGINS_A_TIME.match(text):
        return Lifetime(at=moment(text))
    return Lifetime(span=span(text))


def moment(text: str) -> datetime:
    """A time by RFC 3339 with its zone, in UTC; seconds may be left out. Raises LifetimeError with what to write."""
    return zoned(as_written(text))


def moment_or_day(text: str, *, end: bool = False) -> datetime:
    """The same, or a day, 2026-12-24, which is one in UTC; end: of that day. Raises LifetimeError."""
    text = text.strip()
    if _DAY_ALONE.fullmatch(text) is None:
        return moment(text)
    try:
        return as_written(f"{text}T00:00Z") + timedelta(days=1 if end else 0)
    except OverflowError:
        raise LifetimeError(_NO_TIME) from None


def moment_or_utc(text: str) -> datetime:
    """As moment_or_day, but in UTC where no zone is named. Raises LifetimeError."""
    at = as_written(text)
    return zoned(at if at.tzinfo else at.replace(tzinfo=UTC))


def zoned(at: datetime) -> datetime:
    """A time in UTC; raises LifetimeError for one that names no zone, as its instant is not known, or one that no clock
    on earth has.
    """
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
    """A time of RFC 3339's shape, with its zone or none; a day alone is its midnight, without a zone."""
    # datetime.fromisoformat takes all of ISO 8601, and each Python another part of it: weeks, days of the year, hours
    # alone, 24:00. Whoever writes those by mistake means another time than the one that would be taken.
    text = text.strip()
    if _DAY_ALONE.fullmatch(text):
        text += "T00:00"
    found = _TIME.fullmatch(text) if len(text) <= LONGEST_TEXT else None
    if found is None:
        raise LifetimeError(_NO_TIME)
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    if hour == 24:
        raise LifetimeError(f"takes midnight as 00:00 of the day that begins, like {EXAMPLE[:11]}00:00:00Z")
    if second == 60:
        raise LifetimeError(f"names a leap second, which is not counted here; write it with :59, like {EXAMPLE}")
    fraction, utc, sign, hours, minutes = found.groups()[6:]
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

    `m` is minutes where it cannot be months: after hours (1h30m), or where there are more than 12 (90m).
    """
    total, smallest, place = 0, 0, 0
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
        total, smallest, place = total + int(part[1]) * size, size, part.end()
    if total == 0:
        raise LifetimeError(f"is no time at all; it takes {_FORMS}")
    if total > _LONGEST:
        raise LifetimeError("is longer than a hundred years; leave it out for no end")
    return timedelta(seconds=total)


def _size(number: int, unit: str, *, after: int) -> int:
    """Seconds of a unit; after: of the unit before it, 0 for none."""
    if unit == "m" and (number > MOST_MONTHS or after == _HOUR):
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
    """A span as `span` reads it, to the second."""
    left, parts = int(length.total_seconds()), []
    for name, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE), ("s", _SECOND)):
        if left >= size:
            parts.append(f"{left // size}{name}")
            left %= size
    return "".join(parts) or "0s"
