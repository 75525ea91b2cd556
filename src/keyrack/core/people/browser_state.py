"""What a browser carries from one step of signing in to the next, encrypted; must decide nothing."""

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
    """Values as one encrypted text for a cookie or a hidden field, good for `lasts`; purpose: which step and user."""
    until = (instance.now() + lasts).timestamp()
    text = json.dumps({"until": until, "values": dict(values)}, separators=(",", ":"))
    return urlsafe_b64encode(instance.key.encrypt(text, _context(purpose))).decode().rstrip("=")


def unpack(instance: Instance, purpose: str, text: str) -> Mapping[str, Any] | None:
    """The values of a text of pack(); None where it is malformed, for another purpose, or too old."""
    if not text or len(text) > LONGEST:
        return None
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        state = json.loads(instance.key.decrypt(raw, _context(purpose)))
    except (ValueError, InvalidTag):
        return None
    values: Mapping[str, Any] = state["values"]
    return values if state["until"] > instance.now().timestamp() else None


def _context(purpose: str) -> str:
    return f"signing in: {purpose}"
