"""Writes the moment at which a key ends as an sshd of some version reads it; it judges no key and asks no sshd.

Source: OpenSSH, auth-options.c, auth2-pubkeyfile.c and misc.c (parse_absolute_time): expiry-time came with 7.7, its Z
with 9.1. sshd still takes a key during the whole second that is written, and refuses it when that has passed. So the
last second before the end is written: at the end itself nobody can log in any more.

sshd passes a time without Z to mktime(3) with tm_isdst 0, so as standard time, also in summer. A local time that occurs
twice, when the clock is put back, means one of two moments; which one can depend on earlier calls of mktime in sshd.
"""

from __future__ import annotations

import calendar
import time
from typing import Iterator, Optional, Set, Tuple

FIRST = (7, 7)
FIRST_IN_UTC = (9, 1)

_Fields = Tuple[int, int, int, int, int, int]
_HOUR, _DAY = 3600, 86400
_SECOND = 1  # sshd accepts a key during the whole second that is written
# Distances of earlier calls of mktime: the GNU library's begins with the offset from UTC that the last call found.
_EARLIER_CALLS = (-200 * _DAY, -_DAY, -2 * _HOUR, 2 * _HOUR, _DAY, 200 * _DAY)
_LONGEST_REPETITION = 25 * 60  # minutes: a day that comes twice, where a country changed sides of the date line


def in_utc(moment: int) -> str:
    """For OpenSSH 9.1 and newer: the value of expiry-time for a key that opens nothing from this moment (seconds since
    1970).
    """
    return _text(_utc(moment - _SECOND)) + "Z"


def in_local_time(moment: int) -> Optional[str]:
    """The same for 7.7 to 9.0, in the time zone of this process, which must be that of sshd: never later than the
    moment, however sshd's mktime(3) reads it. None where nothing in the day before it can be written so.
    """
    moment -= _SECOND
    best: Optional[Tuple[int, str]] = None
    for fields in _spellings(moment):
        meant = _meant(fields)
        if meant and max(meant) <= moment and (best is None or max(meant) > best[0]):
            best = (max(meant), _text(fields))
    if best is not None:
        return best[1]
    # The moment is in the first of two equal hours: take the last local time before them that means one moment only.
    for minutes in range(1, _LONGEST_REPETITION):
        earlier = moment - moment % 60 - 60 * minutes
        for fields in _spellings(earlier):
            meant = _meant(fields)
            if meant and max(meant) <= moment and min(meant) >= earlier - 60:
                return _text(fields)
    return None


def _spellings(moment: int) -> Iterator[_Fields]:
    """Local times that may mean the moment: first localtime's, then corrected by what mktime makes of it."""
    try:
        fields = _fields(time.localtime(moment))
        for _ in range(3):
            yield fields
            meant = _asked(fields)
            if meant is None or meant == moment:
                return
            fields = _utc(calendar.timegm((*fields, 0, 0, 0)) + moment - meant)
    except (OverflowError, ValueError, OSError):
        return


def _meant(fields: _Fields) -> Set[int]:
    """Every moment that sshd may read a local time as; empty where it may refuse it."""
    if not 1970 <= fields[0] <= 9999:
        return set()
    moments: Set[int] = set()
    around = calendar.timegm((*fields, 0, 0, 0))
    for distance in (0, *_EARLIER_CALLS):
        try:
            time.mktime(time.localtime(around + distance))
        except (OverflowError, ValueError, OSError):
            continue
        meant = _asked(fields)
        if meant is None or meant <= 0:
            return set()
        moments.add(meant)
    return moments


def _asked(fields: _Fields) -> Optional[int]:
    try:
        return int(time.mktime((*fields, 0, 0, 0)))
    except (OverflowError, ValueError, OSError):
        return None


def _utc(moment: int) -> _Fields:
    return _fields(time.gmtime(moment))


def _fields(when: time.struct_time) -> _Fields:
    return (when.tm_year, when.tm_mon, when.tm_mday, when.tm_hour, when.tm_min, when.tm_sec)


def _text(fields: _Fields) -> str:
    return f"{fields[0]:04d}{fields[1]:02d}{fields[2]:02d}{fields[3]:02d}{fields[4]:02d}{fields[5]:02d}"
