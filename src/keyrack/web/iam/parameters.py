"""Reads the parts of bodies that IAM's calls take; must decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyrack.web import bodies


def part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object inside a body; raises Refusal INVALID."""
    inner = value.get(name)
    if not isinstance(inner, dict):
        raise bodies.malformed(f"The body lacks the object {name!r}.")
    return inner


def text(value: Mapping[str, Any], name: str) -> str | None:
    """A text inside a body, or None; raises Refusal INVALID for another type."""
    found = value.get(name)
    if found is None or isinstance(found, str):
        return found
    raise bodies.malformed(f"{name!r} must be a string.")
