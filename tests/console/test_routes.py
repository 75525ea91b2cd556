"""Every page and every change of the console with every role: who may, and what the others see."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx2
import pytest

from keyrack import policy
from keyrack.model import Actor, Role
from keyrack.web.console.api import PAGES
from keyrack.web.console.visits import ConsolePage
from tests.console.conftest import COOKIE, session_of
from tests.plain_http import PLAIN
from tests.services import Service

# What stands in paths, so that a page is tried with something that is there.
EXAMPLES = {
    "server": "1",
    "name": "olga",
    "path": "acme/site",
    "fingerprint": "SHA256:nothing",
    "id": "1",
    "number": "1",
    "grant": "1",
    "key": "NOTHING",
}
PEOPLE = {Role.OWNER: "olga", Role.MEMBER: "mallory", Role.AUDITOR: "audrey"}
# What a member without any right must find on no page: the others, and what is theirs.
OTHERS = ("olga", "alice", "audrey", "web-1", "192.0.2.10")
STRANGERS = ("victor", "umbrella", "lab-1", "198.51.100.7")
MENDABLE = {409, 412, 422}


def address(page: ConsolePage) -> str:
    """A page's address, with examples for its names."""
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda match: EXAMPLES[match[1]], page.path)


def may(role: Role, page: ConsolePage) -> bool:
    """Whether a role alone lets somebody see a page or make its change."""
    return policy.may(Actor(1, 1, "", role), page.action) is None


@pytest.fixture(scope="module")
def clients(console: Service) -> Iterator[dict[Role, httpx2.Client]]:
    """A browser of each role."""
    made = {role: httpx2.Client(base_url=console.url, headers={"Accept": "text/html"}, verify=PLAIN) for role in PEOPLE}
    yield made
    for client in made.values():
        client.close()


def renew(console: Service, client: httpx2.Client, role: Role) -> None:
    """A new session, as the one before may just have been ended."""
    client.cookies.set(COOKIE, session_of(console, PEOPLE[role]), domain="127.0.0.1")


@pytest.mark.parametrize("role", list(PEOPLE))
@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.method} {page.path}")
def test_each_role_reaches_exactly_the_pages_that_it_may(
    console: Service, clients: dict[Role, httpx2.Client], page: ConsolePage, role: Role
) -> None:
    client = clients[role]
    renew(console, client, role)
    if page.method == "GET":
        answer = client.get(address(page))
    else:
        found = re.search(r'"X-CSRF-Token": "([0-9a-f]+)"', client.get("/logout").text)
        assert found is not None
        if not page.from_outside:
            assert client.post(address(page), data={}).status_code == 403, "a form of another page"
        answer = client.post(address(page), data={"csrf": found[1]})
    assert answer.status_code < 500, answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"<(script|style)[^>]*>[^<]|\sstyle=|\son\w+=", answer.text)
    if page.open or may(role, page):
        assert answer.status_code in {200, 204, 303, 404} | MENDABLE | ({401} if page.open else set()) | (
            {403} if page.judged else set()
        ), answer.text
    else:
        assert answer.status_code == 403
    seen = answer.text
    assert not [name for name in STRANGERS if name in seen]
    if role is Role.MEMBER:
        assert not [name for name in OTHERS if name in seen.replace("deploy key", "")]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if not page.open], ids=lambda page: f"{page.method} {page.path}"
)
def test_no_page_is_reached_without_a_session(console: Service, page: ConsolePage) -> None:
    answer = console.client.request(page.method, address(page), headers={"Accept": "text/html"})
    assert answer.status_code in (401, 303)
    assert not [name for name in (*OTHERS, *STRANGERS) if name in answer.text]
    program = console.client.request(page.method, address(page))
    assert program.status_code == (200 if address(page) == "/" else 401)
