"""Every name of the corpus is shown as it is, and does nothing, wherever a person may meet it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unicodedata import normalize

from markupsafe import escape
from playwright.sync_api import Page

from keyrack.core.hosts import servers
from keyrack.core.keys import grants, user_keys
from keyrack.core.people import actors, users
from keyrack.errors import Refusal
from keyrack.model import Role
from tests.console import lifelike
from tests.console.conftest import SignedIn
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

MARKUP = ("<img src=x onerror=alert(1)>", "{{ 7 * 7 }}", '"><b id="broken">', "' onclick='alert(1)")
TEXTS = """() => [...document.querySelectorAll("main td, main h1, main a, main span, main option")]
  .map((one) => one.value && one.tagName === "OPTION" ? one.value : one.textContent)"""


def accepted(step: Callable[[str], Any], names: list[str]) -> dict[str, Any]:
    """What a step makes of each name, as it is spelt from then on; without those that the core does not take."""
    made = {}
    for name in names:
        try:
            made[normalize("NFC", name)] = step(name)
        except Refusal:
            continue
    return made


def test_names_of_any_characters_are_shown_unchanged(page: Page, console: Service, signed_in: SignedIn) -> None:
    instance, keyrack = console.instance, actors.system_actor(1)
    olga = next(user for user in users.find(instance, keyrack) if user.name == "olga")
    names = [*dict.fromkeys(lifelike.corpus()), *MARKUP]
    titles = accepted(
        lambda name: user_keys.add(instance, keyrack, title=name, public_key=fresh_line(), user_id=olga.id), names
    )
    people = accepted(lambda name: users.create_user(instance, keyrack, name=name, role=Role.MEMBER), names)
    hosts = accepted(lambda name: servers.create(instance, keyrack, name=name, address="192.0.2.20"), names)
    reasons = accepted(
        lambda name: grants.give(
            instance, keyrack, user_id=olga.id, server_id=1, system_user="deploy", reason=name
        ),
        names,
    )  # fmt: skip
    assert min(map(len, (titles, people, hosts))) > 10

    dialogs: list[str] = []
    page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    signed_in(page, "olga")

    def shown(path: str) -> set[str]:
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        assert page.locator("main img, #broken, main [onclick]").count() == 0
        return {normalize("NFC", text) for text in page.evaluate(TEXTS)}

    assert set(titles) <= shown("/keys")
    assert set(people) <= shown("/people")
    assert set(hosts) <= shown("/hosts")
    assert reasons
    assert set(reasons) <= shown("/grants")
    for named, path in ((people, "/people"), (hosts, "/hosts"), (titles, "/keys")):
        page.goto(path)
        links = page.locator("main td:first-child a").evaluate_all(
            "(all) => all.map((one) => [one.textContent, one.getAttribute('href')])"
        )
        found = [link for link in links if normalize("NFC", link[0]) in named]
        assert len(found) == len(named)
        for text, address in found:
            answer = page.request.get(address, headers={"Accept": "text/html"})
            assert answer.status == 200, address
            assert str(escape(text)) in answer.text()
            assert not any(mark in answer.text() for mark in MARKUP if mark[0] in "<\"'")
    assert dialogs == []
