"""Says what lets somebody in all the same after something was taken away, so that nobody takes it for shut; must change
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from keyrack.cli.connection.calls import PAGE_SIZE, CallRefused, Calls


def ways(calls: Calls, **asked: Any) -> list[dict[str, Any]]:
    """The ways in of a user, or on a server; none where this caller may not see them."""
    return _every(calls, "/access", asked)


def words(left: Iterable[Mapping[str, Any]]) -> str:
    """The end of a sentence, empty where there is no such way."""
    kinds = {"group": "grant"}  # what has the id is the grant to the group
    return _sentence_end(
        f"{kinds.get(one['via']['kind'], one['via']['kind'])} {one['via']['id']} (server {one['server']})"
        for one in left
    )


def of_key(calls: Calls, key: Mapping[str, Any]) -> str:
    """Of a user's key that is to be deleted: the words for where it is registered as itself, or stands in a file."""
    return _opening(one for one in _places(calls, key) if one["kind"] in ("credential", "unmanaged key"))


def of_account(calls: Calls, gone: Mapping[str, Any]) -> str:
    """Of a credential that was deleted: the words for what lets its key into the same account."""
    return _opening(
        one
        for one in _places(calls, gone)
        if one["server_id"] == gone["server_id"] and one["system_user"] in (gone["username"], "*")
    )


def _opening(places: Iterable[Mapping[str, Any]]) -> str:
    return _sentence_end(
        f"{'the file ' + one['name'] if one['kind'] == 'unmanaged key' else one['kind'] + ' ' + str(one['id'])} "
        f"(server {one['server']})"
        for one in places
    )


def _places(calls: Calls, key: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _every(calls, "/keys/places", {"fingerprint": key["fingerprint"]}) if key["fingerprint"] else []


def _every(calls: Calls, path: str, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All items of a list that goes by cursor alone; none where this caller may not see them."""
    items: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        try:
            page = calls.ask("GET", path, query={**asked, "cursor": cursor, "per_page": PAGE_SIZE})
        except CallRefused:
            return items
        items += page["items"]
        cursor = page["next"]
    return items


def _sentence_end(labels: Iterable[str]) -> str:
    once = dict.fromkeys(labels)
    return f"; still let in by: {', '.join(once)}" if once else ""
