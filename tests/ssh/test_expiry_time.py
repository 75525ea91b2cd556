"""Ends in local time: exact wherever summer time tells equal hours apart, and never later than the end anywhere."""

from __future__ import annotations

import os
import random
import time
import zoneinfo
from collections.abc import Iterator

import pytest

from keyrack.ssh.expiry_time import in_local_time, in_utc

FEW = [
    "Europe/Berlin",
    "Europe/Dublin",
    "Africa/Casablanca",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "Europe/Moscow",
    "Asia/Pyongyang",
    "Africa/Juba",
    "Antarctica/Troll",
    "America/Scoresbysund",
    "UTC",
    "Etc/GMT+12",
]
LONG = bool(os.environ.get("KEYRACK_LONG"))
ZONES = sorted(zoneinfo.available_timezones()) if LONG else FEW
# Where a zone itself changed in these years, and not its summer time alone: there an end may come earlier.
FIRST, LAST = 1_388_534_400, 1_893_456_000  # 2014 to 2030
DAY = 86400


@pytest.fixture(autouse=True)
def own_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The zone of this process is what it was afterwards."""
    yield
    monkeypatch.undo()
    time.tzset()


def changes() -> list[int]:
    """The moments at which this process's zone changes its distance from UTC."""
    found = []
    for low in range(FIRST, LAST, 3 * DAY):
        high = low + 3 * DAY
        if time.localtime(low).tm_gmtoff != time.localtime(high).tm_gmtoff:
            while high - low > 1:
                middle = (low + high) // 2
                same = time.localtime(middle).tm_gmtoff == time.localtime(low).tm_gmtoff
                low, high = (middle, high) if same else (low, middle)
            found.append(high)
    return found


def as_sshd_reads(text: str) -> int:
    """misc.c, parse_absolute_time: strptime(3), then mktime(3) with tm_isdst 0."""
    fields = [int(text[:4]), *(int(text[at : at + 2]) for at in range(4, 14, 2))]
    return int(time.mktime((fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], 0, 0, 0)))


def opens_until(text: str) -> int:
    """auth2-pubkeyfile.c: a key is refused when what its line says is less than time(2), which counts whole seconds."""
    return as_sshd_reads(text) + 1


@pytest.mark.parametrize("zone", ZONES)
def test_never_later_and_at_most_a_repetition_earlier(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    rolls = random.Random(zone)
    moments = [rolls.randrange(FIRST, LAST) for _ in range(20)]
    for change in changes():
        moments += [change + distance for distance in (-7200, -3601, -3600, -1800, -1, 0, 1, 1800, 3599, 3600, 7200)]
    inexact = 0
    for moment in moments:
        text = in_local_time(moment)
        assert text is not None
        for asked_before in (0, -200 * DAY, 200 * DAY, -7200, 7200):
            time.mktime(time.localtime(moment + asked_before))
            early = moment - opens_until(text)
            assert 0 <= early <= 25 * 3600, (zone, moment, text, asked_before)
            inexact += early > 0
    if zone in ("Europe/Berlin", "Europe/Dublin", "America/Santiago", "Australia/Lord_Howe", "UTC", "Asia/Kathmandu"):
        assert inexact == 0


def test_utc_needs_no_zone() -> None:
    assert in_utc(1) == "19700101000000Z"
    assert in_utc(1_795_000_000) == "20261118110639Z"
