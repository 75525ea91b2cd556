"""Spans of time as an operator writes and reads them; must print nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import click

from keyrack.core.audit import events
from keyrack.core.instance import Instance
from keyrack.errors import Refusal

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str) -> int:
    """Seconds of a span such as 90, 30s, 15m or 1h; exits with words for anything else."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if match is None:
        raise click.UsageError("--after takes a number and s, m, h or d, such as 1h; 0 for never.")
    return int(match[1]) * UNITS.get(match[2], 1)


def ago(instance: Instance, at: datetime | None) -> str:
    """How long ago that was, in the largest unit; "never" for None."""
    if at is None:
        return "never"
    seconds = max(0, int((instance.now() - at).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


def asked_moment(option: str, text: str, *, end: bool = False) -> datetime:
    """The time that an option names, as core.audit.events.moment reads it; exits with words for anything else."""
    try:
        return events.moment(text, field=option, end=end)
    except Refusal as refusal:
        raise click.UsageError(f"{option}: {refusal.message}") from None


def moment(at: datetime | None) -> str:
    """A time in UTC to the second, - for none."""
    return "-" if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
