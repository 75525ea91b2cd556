"""How people write how long something lasts: what is taken for what, and what they are told to write instead."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import keyrack
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
ENDS = (
    "2026-12-24T18:00+01:00",
    "2026-12-24T17:00:00Z",
    "2026-12-24t17:00:00z",
    "2026-12-24 12:00:00-05:00",
    "2026-12-25T07:00:00+14:00",
    "2026-12-24T17:00:00.25-00:00",
)
NO_TIMES = {
    "2026-W52-4T10:00Z": "like 2026-12-24T18:00:00+01:00",
    "2026W524T100000Z": "90min",
    "2026-358T10:00:00Z": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T18": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T18Z": "like 2026-12-24T18:00:00+01:00",
    "20261224T170000Z": "like 2026-12-24T18:00:00+01:00",
    "20261224": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T1700Z": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00,5Z": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00.Z": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00 Z": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24_17:00:00Z": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00+0100": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00+01": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00+01:00:30": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00+01:75": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00+25:00": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00+14:01": "14 hours; write it like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00-23:59": "14 hours",
    "2026-12-24T24:00:00Z": "like 2026-12-24T00:00:00Z",
    "2026-12-31T23:59:60Z": "leap second",
    "2026-02-29T00:00:00Z": "is no time",
    "2026/12/24 18:00": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00+01:00[Europe/Berlin]": "like 2026-12-24T18:00:00+01:00",
    "٢026-12-24T17:00:00Z": "2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:0０Z": "like 2026-12-24T18:00:00+01:00",
    "2026-12-24T17:00:00." + "0" * 60 + "Z": "90min",
}


@pytest.mark.parametrize(("text", "seconds"), SPANS.items(), ids=SPANS)
def test_lengths_of_time_are_read(text: str, seconds: int) -> None:
    read = lifetimes.read(text)
    assert (read.span, read.at) == (timedelta(seconds=seconds), None)
    assert lifetimes.span(lifetimes.written(timedelta(seconds=seconds))) == read.span


@pytest.mark.parametrize(("text", "words"), REFUSED.items(), ids=range(len(REFUSED)))
def test_a_refused_length_of_time_says_what_to_write(text: str, words: str) -> None:
    with pytest.raises(LifetimeError) as refused:
        lifetimes.read(text)
    assert words in str(refused.value)


@pytest.mark.parametrize(("text", "words"), NO_TIMES.items(), ids=range(len(NO_TIMES)))
def test_an_ambiguous_time_is_refused(text: str, words: str) -> None:
    with pytest.raises(LifetimeError) as refused:
        lifetimes.read(text)
    assert words in str(refused.value)
    for reads in (lifetimes.moment, lifetimes.moment_or_day, lifetimes.moment_or_utc):
        with pytest.raises(LifetimeError):
            reads(text)


def test_days_and_times_of_day_are_read() -> None:
    day = datetime(2026, 12, 24, tzinfo=UTC)
    assert lifetimes.moment_or_day("2026-12-24") == day == lifetimes.moment_or_utc("2026-12-24")
    assert lifetimes.moment_or_day("2026-12-24", end=True) == day + timedelta(days=1)
    assert lifetimes.moment_or_utc("2026-12-24T00:00:00") == day
    assert lifetimes.as_written("2026-12-24T18:00") == datetime(2026, 12, 24, 18)  # noqa: DTZ001 — a wall's
    for reads, text in ((lifetimes.moment, "2026-12-24T18:00"), (lifetimes.moment_or_day, "2026-12-24T18:00")):
        with pytest.raises(LifetimeError):
            reads(text)
    with pytest.raises(LifetimeError):
        lifetimes.moment_or_day("9999-12-31", end=True)


def test_ends_are_instants() -> None:
    at = datetime(2026, 12, 24, 17, tzinfo=UTC)
    for text in ENDS:
        assert lifetimes.read(text).end(at - timedelta(days=1)).replace(microsecond=0) == at, text
    assert lifetimes.moment("2026-12-24T17:00:00.1234567Z") == at.replace(microsecond=123_456)
    assert lifetimes.read("1h").end(at) == at + timedelta(hours=1)
    with pytest.raises(LifetimeError):
        lifetimes.read("36500d").end(datetime.max.replace(tzinfo=UTC))


def test_only_lifetimes_parses_times_that_people_write() -> None:
    """Python's own reader takes all of ISO 8601, and each version another part of it."""
    source = Path(keyrack.__file__).parent
    found = {
        str(path.relative_to(source))
        for path in source.rglob("*.py")
        if re.search(r"fromisoformat\(|strptime\(", path.read_text())
    }
    # What programs of ours wrote, HTTP's Date, and the time of a signature, which has a form of its own.
    programs = {
        "cli/hosts/host_list.py",
        "web/runcloud/servers.py",
        "core/cursors.py",
        "core/hosts/login_reports.py",
    }
    others = {"agent/service/client.py", "core/people/request_signing.py", "store/hosts/reported_facts.py"}
    assert found == programs | others
