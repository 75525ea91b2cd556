"""What a browser carries from one step of signing in to the next, readable to us alone; must decide nothing."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from cryptography.exceptions import InvalidTag

from keyrack.core.instance import Instance

LONGEST = 4000


def pack(instance: Instance, purpose: str, values: Mapping[str, Any], *, lasts: timedelta) -> str:
    """Values of JSON as one text for a cookie or a hidden field; purpose: what for, and for whom."""
    until = (instance.now() + lasts).timestamp()
    text = json.dumps({"until": until, "values": dict(values)}, separators=(",", ":"))
    return urlsafe_b64encode(instance.key.encrypt(text, _context(purpose))).decode().rstrip("=")


def unpack(instance: Instance, purpose: str, text: str) -> Mapping[str, Any] | None:
    """The values again; None for a text that we did not write, or not for this, or that is too old."""
    if not text or len(text) > LONGEST:
        return None
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        held = json.loads(instance.key.decrypt(raw, _context(purpose)))
    except (ValueError, InvalidTag):
        return None
    values: Mapping[str, Any] = held["values"]
    return values if held["until"] > instance.now().timestamp() else None


def _context(purpose: str) -> str:
    return f"signing in: {purpose}"
