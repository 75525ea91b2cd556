"""Spans of time as an operator writes and reads them; must print nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from keyrack.cli.output.tables import NOTHING
from keyrack.core import lifetimes
from keyrack.core.lifetimes import LifetimeError


def seconds_of(text: str) -> int:
    """Seconds of a span such as 90 (seconds), 15min or 1h, as lifetimes.span reads it; exits with words otherwise."""
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    try:
        return int(lifetimes.span(text).total_seconds())
    except LifetimeError as problem:
        raise click.UsageError(f"{text!r} {problem}; 0 for never.") from None


def before_now(text: str) -> datetime | None:
    """When a span such as 12h began that lasts until now; None for what is no span."""
    try:
        return datetime.now(UTC) - lifetimes.span(text)
    except (LifetimeError, OverflowError):
        return None


def ago(now: datetime, at: datetime | None) -> str:
    """How long ago that was, in the largest unit; "never" for None."""
    if at is None:
        return "never"
    seconds = max(0, int((now - at).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"


def moment(at: datetime | None) -> str:
    """A time in UTC to the second, NOTHING for none."""
    return NOTHING if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
