"""The search, and what it offers as one types: pages, what there is to do, and what has that in its name; must hold no
rule of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from starlette.responses import Response

from keyrack.core.git import repositories
from keyrack.core.hosts import server_list
from keyrack.core.keys import freezes, published_keys, user_keys
from keyrack.core.people import named_people
from keyrack.errors import Refusal
from keyrack.ssh.fingerprint import is_fingerprint
from keyrack.web.console.visits import Visit, page

MOST, OFFERED = 20, 5
"""Of each kind: on the page, and as one types. Where there are more, the last words lead to all of them."""
# What somebody may look for by what it does: its words, where it is, and the action that it takes.
DOINGS = (
    ("Add key", "/keys?add=1", user_keys.ADD),
    ("Add host", "/hosts?add=1", "servers:write"),
    ("Add person", "/people?add=1", "people:write"),
    ("Grant access", "/access/grant", "grants:write"),
    ("Grants", "/grants", "grants:read"),
    ("Ask for access", "/requests?ask=1", "requests:ask"),
    ("Freeze keys", "/freezes?whose=user", freezes.FREEZE),
    ("Freezes", "/freezes", "credentials:read"),
    ("Webhooks", "/settings/webhooks", "webhooks:read"),
    ("Sign-in and sessions", "/settings/sign-in", "iam:self"),
    ("What was refused", "/activity?kind=refused", "events:read"),
)
# The list that shows all of a kind that have a piece of text in their names.
WHOLE = {"People": "/people", "Hosts": "/hosts", "Keys": "/keys", "Repositories": "/repositories"}
Hits = dict[str, list[tuple[str, str]]]
"""By kind: the words, and the address that they lead to."""


def search(visit: Visit) -> Response:
    """What has a piece of text in its name; as one types, also the pages that there are."""
    text = visit.query.get("q", "").strip()
    most = OFFERED if visit.is_part else MOST
    hits = {"Go to": _places(visit, text), **(_named(visit, text, most) if text else {})}
    shown = {kind: items for kind, items in hits.items() if items}
    if visit.is_part:
        return visit.show("_found.html", text=text, hits=shown)
    return visit.show("search.html", text=text, hits=shown if text else {})


def _places(visit: Visit, text: str) -> list[tuple[str, str]]:
    """Pages, and what there is to do, whose words have words that begin so."""
    pages = [(words, address) for words, address, _ in visit.rail("/search")]
    doings = [(words, address) for words, address, action in DOINGS if visit.may(action)] if text else []
    return [(words, address) for words, address in (*pages, *doings) if _begins(words, text)]


def _begins(words: str, text: str) -> bool:
    wanted, there = text.casefold(), words.casefold()
    return there.startswith(wanted) or f" {wanted}" in f" {there}"


def _named(visit: Visit, text: str, most: int) -> Hits:
    beyond, hits = most + 1, Hits()
    if visit.may("people:read"):
        people = named_people.find(visit.instance, visit.actor, search=text, limit=beyond)
        hits["People"] = _to("/people", ((one.name, one.name) for one in people.items))
    if visit.may("servers:read"):
        hosts = server_list.find(visit.instance, visit.actor, search=text, limit=beyond)
        hits["Hosts"] = _to("/hosts", ((one.name, one.id) for one in hosts.items))
    hits["Keys"] = _to("/keys", _keys(visit, text, beyond))
    if visit.may(repositories.READ):
        paths = repositories.find(visit.instance, visit.actor, search=text, limit=beyond)
        hits["Repositories"] = _to("/repositories", ((one.path, one.path) for one in paths.items))
    return {kind: _cut(visit, kind, items, text, most) for kind, items in hits.items()}


def _cut(visit: Visit, kind: str, items: list[tuple[str, str]], text: str, most: int) -> list[tuple[str, str]]:
    """So many of them, and the way to all where there are more."""
    if len(items) <= most:
        return items
    whole = "/search" if visit.is_part else WHOLE[kind]
    return [*items[:most], (f"More {kind.lower()}…", f"{whole}?q={quote(text)}")]


def _to(folder: str, names: Iterable[tuple[str, object]]) -> list[tuple[str, str]]:
    return [(words, f"{folder}/{quote(str(name))}") for words, name in names]


def _keys(visit: Visit, text: str, most: int) -> list[tuple[str, str]]:
    """Keys of one's own by title, and anybody's by its whole fingerprint: its words, and the fingerprint."""
    if not visit.may(user_keys.READ):
        return []
    mine = user_keys.find(visit.instance, visit.actor, search=text, limit=most).items
    shown = [(one.title or "without a title", one.fingerprint) for one in mine if one.fingerprint]
    if is_fingerprint(text) and visit.may("people:read"):
        try:
            key, owner = published_keys.by_fingerprint(visit.instance, visit.actor, text)
        except Refusal:
            return shown
        shown.append((f"{key.title or text} of {owner.name}", text))
    return shown


PAGES = (page("/search", search),)
