"""How people write how long something lasts: what is taken for what, and what they are told to write instead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from keyrack.core import lifetimes
from keyrack.core.lifetimes import LifetimeError

SPANS = {
    "90m": 90 * 60,
    "90min": 90 * 60,
    "2min": 120,
    "13m": 13 * 60,
    "1h30m": 5400,
    "1h30min": 5400,
    "1h2m": 3720,
    "30s": 30,
    "12h": 43_200,
    "12 hours": 43_200,
    "12H": 43_200,
    "3d": 259_200,
    "1d12h": 129_600,
    "1 day 12 hours": 129_600,
    "1w": 604_800,
    " 2weeks ": 1_209_600,
}
REFUSED = {
    "": "90min",
    "2m": "write 2min for minutes, or 60d",
    "12m": "write 12min for minutes, or 360d",
    "90M": "write 90min",
    "1d2m": "write 2min",
    "3mo": "write 90d",
    "1 year": "write 365d",
    "2y": "write 730d",
    "90": "names no unit: write 90min, 90h or 90d",
    "1.5h": "whole numbers",
    "1,5h": "whole numbers",
    "0h": "no time at all",
    "-1h": "90min",
    "h": "90min",
    "1h1h": "larger units first",
    "5min1h": "larger units first",
    "1fortnight": "units",
    "P3D": "90min",
    "tomorrow": "90min",
    "٣d": "90min",
    "1h\n2min;": "90min",
    "9" * 40 + "h": "90min",
    "999999999w": "hundred years",
    "2026-12-24T18:00": "names no zone: write 2026-12-24T18:00:00Z",
    "2026-12-24": "names no zone",
    "2026-13-24T18:00Z": "is no time",
    "2026-12-24T25:00+01:00": "is no time",
    "0001-01-01T00:00:00+12:00": "is no time",
}


@pytest.mark.parametrize(("text", "seconds"), SPANS.items(), ids=SPANS)
def test_spans(text: str, seconds: int) -> None:
    read = lifetimes.read(text)
    assert (read.span, read.at) == (timedelta(seconds=seconds), None)
    assert lifetimes.span(lifetimes.written(timedelta(seconds=seconds))) == read.span


@pytest.mark.parametrize(("text", "words"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_is_refused_says_what_to_write(text: str, words: str) -> None:
    with pytest.raises(LifetimeError) as refused:
        lifetimes.read(text)
    assert words in str(refused.value)


def test_ends_are_instants() -> None:
    at = datetime(2026, 12, 24, 17, tzinfo=UTC)
    for text in ("2026-12-24T18:00+01:00", "2026-12-24T17:00:00Z", "20261224T170000Z", "2026-12-24 12:00:00-05:00"):
        assert lifetimes.read(text).end(at - timedelta(days=1)) == at
    assert lifetimes.read("1h").end(at) == at + timedelta(hours=1)
    with pytest.raises(LifetimeError):
        lifetimes.read("36500d").end(datetime.max.replace(tzinfo=UTC))
