"""Tells in words by which other keys somebody can still log in after one was removed; must change nothing, and read no
more than one page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keyrack.cli.connection.calls import CallRefused, Calls

MAX_WAYS = 200


def ways(calls: Calls, **asked: Any) -> list[dict[str, Any]]:
    """The first ways in of a user, or on a server; empty where this caller may not see them."""
    try:
        page: list[dict[str, Any]] = calls.ask("GET", "/access", query={**asked, "per_page": MAX_WAYS})["items"]
    except CallRefused:
        return []
    return page


def words(left: Iterable[Mapping[str, Any]]) -> str:
    """The end of a sentence, empty where there is no such way."""
    labels = {f"{one['via']['kind']} {one['via']['id']} (server {one['server']})": None for one in left}
    return f"; still let in by: {', '.join(labels)}" if labels else ""


def of_key(calls: Calls, user: str, key: Mapping[str, Any]) -> str:
    """The words for where a user's key is registered on servers directly; to be asked before it is deleted."""
    return words(
        one
        for one in ways(calls, user=user)
        if one["fingerprint"] == key["fingerprint"] and one["via"]["kind"] == "credential"
    )
