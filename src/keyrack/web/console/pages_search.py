"""The search, and what it offers while somebody types: pages, tasks, and things with that in their name; must hold no
rule of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import quote

from starlette.responses import Response

from keyrack.core.git import repositories
from keyrack.core.hosts import server_list
from keyrack.core.keys import freezes, published_keys, user_keys
from keyrack.core.people import named_people
from keyrack.errors import Refusal
from keyrack.ssh.fingerprint import is_fingerprint
from keyrack.web.console.key_places import places_of
from keyrack.web.console.visits import Visit, page

MAX, MAX_OFFERED = 20, 5
"""How many hits of each kind are shown: on the page, and while somebody types. More are behind a link."""
# Tasks that the search finds by their words: the words, where it is done, and the action that it takes.
TASKS = (
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
# The pages that list all hits of a kind.
LISTS = {"People": "/people", "Hosts": "/hosts", "Keys": "/keys", "Repositories": "/repositories"}
Hits = dict[str, list[tuple[str, str]]]
"""By kind: the words of each hit, and the address that it leads to."""


def search(visit: Visit) -> Response:
    """Show what has the text in its name; while somebody types, only the first hits, as a list to choose from."""
    text = visit.query.get("q", "").strip()
    most = MAX_OFFERED if visit.is_part else MAX
    hits = {"Go to": _places(visit, text), **(_named(visit, text, most) if text else {})}
    shown = {kind: items for kind, items in hits.items() if items}
    if visit.is_part:
        return visit.show("_found.html", text=text, hits=shown)
    return visit.show("search.html", text=text, hits=shown if text else {})


def _places(visit: Visit, text: str) -> list[tuple[str, str]]:
    """The pages and tasks of which a word begins with the text."""
    pages = [(words, address) for words, address, _ in visit.rail("/search")]
    tasks = [(words, address) for words, address, action in TASKS if visit.may(action)] if text else []
    return [(words, address) for words, address in (*pages, *tasks) if _begins(words, text)]


def _begins(words: str, text: str) -> bool:
    wanted, there = text.casefold(), words.casefold()
    return there.startswith(wanted) or f" {wanted}" in f" {there}"


def _named(visit: Visit, text: str, most: int) -> Hits:
    """The hits by kind, at most so many of each, and then a link to all."""
    limit = most + 1  # one more tells whether there are more
    hits: Hits = {}
    if visit.may("people:read"):
        people = named_people.find(visit.instance, visit.actor, search=text, limit=limit)
        hits["People"] = _to("/people", ((one.name, one.name) for one in people.items))
    if visit.may("servers:read"):
        hosts = server_list.find(visit.instance, visit.actor, search=text, limit=limit)
        hits["Hosts"] = _to("/hosts", ((one.name, one.id) for one in hosts.items))
    hits["Keys"] = _to("/keys", _keys(visit, text, limit))
    if visit.may(repositories.READ):
        paths = repositories.find(visit.instance, visit.actor, search=text, limit=limit)
        hits["Repositories"] = _to("/repositories", ((one.path, one.path) for one in paths.items))
    return {kind: _cut(visit, kind, items, text, most) for kind, items in hits.items()}


def _cut(visit: Visit, kind: str, items: list[tuple[str, str]], text: str, most: int) -> list[tuple[str, str]]:
    """The first hits, and a link to all if there are more."""
    if len(items) <= most:
        return items
    list_page = "/search" if visit.is_part else LISTS[kind]
    return [*items[:most], (f"More {kind.lower()}…", f"{list_page}?q={quote(text)}")]


def _to(folder: str, names: Iterable[tuple[str, object]]) -> list[tuple[str, str]]:
    return [(words, f"{folder}/{quote(str(name))}") for words, name in names]


def _keys(visit: Visit, text: str, most: int) -> list[tuple[str, str]]:
    """The visitor's own keys by title, and any key by its whole fingerprint: words, and the fingerprint."""
    if not visit.may(user_keys.READ):
        return []
    mine = user_keys.find(visit.instance, visit.actor, search=text, limit=most).items
    shown = [(one.title or "without a title", one.fingerprint) for one in mine if one.fingerprint]
    if is_fingerprint(text) and text not in {fingerprint for _, fingerprint in shown}:
        words = _words_of(visit, text)
        shown += [(words, text)] if words else []
    return shown


def _words_of(visit: Visit, fingerprint: str) -> str:
    """The words for a key that another person registered, or nobody; "" where the visitor may see none."""
    if visit.may("people:read"):
        with suppress(Refusal):
            key, owner = published_keys.by_fingerprint(visit.instance, visit.actor, fingerprint)
            return f"{key.title or fingerprint} of {owner.name}"
    places = places_of(visit, fingerprint)
    if places is None:
        return ""
    if places.accounts:
        first = places.accounts[0]
        account = "every account" if first.system_user == "*" else first.system_user
        words = f"{first.name}: {account} on {first.server}"
    else:
        deploy_key = places.deploy_keys[0]
        words = f"{deploy_key.name}: deploy key of {deploy_key.repository}"
    return words + (" and more" if len(places.accounts) + len(places.deploy_keys) > 1 else "")


PAGES = (page("/search", search),)
