"""Whatever a page offers somebody, a link, a button or a form, they may do: nobody is led to a refusal, by any role."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from keyrack import policy
from keyrack.core.people import actors, users, web_sessions
from keyrack.model import Actor, Role
from keyrack.web.console.api import PAGES
from keyrack.web.console.visits import ConsolePage
from tests.console.conftest import COOKIE, session_of
from tests.console.screenshots import lifelike_instance
from tests.plain_http import PLAIN
from tests.services import Service

KEYRACK = actors.system_actor(1)
# A member who may register keys, one with rights to hosts alone, and one without any.
WHO = {
    "olga": "owner",
    "bob": "admin",
    "carol": "auditor",
    "david": "member",
    "otto": "operator",
    "nobody": "no rights",
}
# The browser comes there by itself.
BY_ITSELF = {"/live", "/logout", "/welcome"}
OF_EACH = 3
"""So many addresses of one page are gone to: each host's page offers what the next one does."""
LINK = re.compile(r'<a\b[^>]*?\bhref="(/[^"#]*)')
FORM = re.compile(r"<form\b([^>]*)>")
ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')


@pytest.fixture(scope="module")
def lifelike() -> Iterator[Service]:
    """A workspace with something of everything."""
    with lifelike_instance(people=16, hosts=10) as service:
        users.create_user(service.instance, KEYRACK, name="nobody", role=Role.MEMBER, password="nobody's password")
        users.create_user(
            service.instance,
            KEYRACK,
            name="otto",
            role=Role.MEMBER,
            policies=("servers:*", "credentials:*", "codeartsrepo::*"),
            password="otto's password",
        )
        yield service


def page_of(path: str, method: str) -> ConsolePage | None:
    """Which page an address is."""
    for page in PAGES:
        pattern = re.sub(r"\{\w+:path\}", "(.+)", page.path)
        if page.method == method and re.fullmatch(re.sub(r"\{\w+\}", "([^/]+)", pattern), path):
            return page
    return None


def actor(service: Service, name: str) -> Actor:
    """Somebody as the console knows them."""
    user = next(one for one in users.find(service.instance, KEYRACK) if one.name == name)
    return web_sessions.actor_of(user, address="127.0.0.1")


def crawl(service: Service, name: str) -> tuple[set[str], list[str]]:
    """Follow all that the pages offer somebody; answers the pages reached, and what was offered and is refused."""
    who, faults, reached = actor(service, name), [], set()
    seen: Counter[Any] = Counter()
    waiting = deque([("/", "")])
    with httpx2.Client(base_url=service.url, headers={"Accept": "text/html"}, verify=PLAIN, timeout=60) as client:
        client.cookies.set(COOKIE, session_of(service, name), domain="127.0.0.1")
        while waiting:
            address, on = waiting.popleft()
            parts = urlsplit(address)
            page = page_of(parts.path, "GET")
            kind = (page.path if page else parts.path, tuple(sorted(re.findall(r"(?:^|&)(\w+)=", parts.query))))
            if seen[address] or seen[kind] >= OF_EACH or (page and "live" in page.path):
                continue
            seen[address] += 1
            seen[kind] += 1
            answer = client.get(address)
            if answer.status_code not in (200, 303):
                faults.append(f"{address}, offered on {on}: {answer.status_code}")
                continue
            reached.add(page.path if page else parts.path)
            if "text/html" not in answer.headers["content-type"]:
                continue
            waiting += [(unescape(link), address) for link in LINK.findall(answer.text)]
            for found in FORM.findall(answer.text):
                form = dict(ATTRIBUTE.findall(found))
                to = unescape(form.get("action", parts.path))
                if form.get("method") != "post":
                    waiting += [(to, address)] if form.get("method") == "get" else []
                    continue
                change = page_of(urlsplit(to).path, "POST")
                assert change is not None, f"{to}, offered on {address}"
                if not change.open and policy.may(who, change.action) is not None:
                    faults.append(f"{to}, a form on {address}: takes {change.action}")
    return reached, faults


@pytest.mark.parametrize("name", list(WHO), ids=list(WHO.values()))
def test_each_role_is_offered_exactly_the_actions_that_it_may_do(lifelike: Service, name: str) -> None:
    reached, faults = crawl(lifelike, name)
    assert not faults, "\n".join(faults)
    who = actor(lifelike, name)
    pages = [page for page in PAGES if page.method == "GET" and not page.open]
    may = {page.path for page in pages if policy.may(who, page.action) is None}
    # A page of one thing is led to where there is such a thing.
    assert {path for path in may if "{" not in path} - reached <= BY_ITSELF
