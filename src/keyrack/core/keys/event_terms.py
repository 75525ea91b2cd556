"""The terms of a key or a grant in an event, with their values, so that the log proves them; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from keyrack.ssh import options

LONGEST = 400
"""Restrictions in a sentence are cut after so many characters; the event's details have them whole."""


def limits(restrictions: Mapping[str, Any]) -> str:
    """Restrictions as they stand in authorized_keys, such as from="10.0.0.0/8",no-pty; "nothing" for none."""
    if not restrictions:
        return "nothing"
    rendered = ",".join(options.written(options.Restrictions.from_json(restrictions), "sk-"))
    return rendered if len(rendered) <= LONGEST else f"{rendered[:LONGEST]}…"


def end(at: datetime | None) -> str:
    """An end in words, "no end" for None."""
    return "no end" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"


def sentence_end(
    *,
    starts_at: datetime | None = None,
    expires_at: datetime | None,
    restrictions: Mapping[str, Any],
    break_glass: bool = False,
) -> str:
    """From when, until when and with which restrictions, as the end of a sentence; "" where there are none of these."""
    phrases = [f" {word} {end(at)}" for word, at in (("from", starts_at), ("until", expires_at)) if at is not None]
    if restrictions:
        phrases.append(f", restricted to {limits(restrictions)}")
    if break_glass:
        phrases.append(", to break glass with")
    return "".join(phrases)


def details(restrictions: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All restrictions, for an event's details; before: those that they replace. Empty where there are none."""
    if before is not None:
        return {"restrictions": dict(restrictions), "restrictions_before": dict(before)}
    return {"restrictions": dict(restrictions)} if restrictions else {}
