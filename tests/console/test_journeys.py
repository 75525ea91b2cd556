"""What people come for, from the first click to what they see of it: drift, leaving, asking, granting, ends."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from keyrack.core.keys import endings, grants, requests, user_keys
from keyrack.core.people import actors, web_sessions
from keyrack.ssh.public_key import parse
from tests.console.conftest import COOKIE, SignedIn, session_of
from tests.console.enrolled_host import Host, person
from tests.console.enrolled_host import host as host
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

KEYRACK = actors.system_actor(1)


@pytest.fixture
def other_page(chromium: Browser, console: Service) -> Iterator[Page]:
    """A page in another person's browser."""
    context = chromium.new_context(base_url=console.url)
    yield context.new_page()
    context.close()


def test_drift_is_found_and_removed(page: Page, host: Host, signed_in: SignedIn) -> None:
    key = parse(fresh_line("somebody@old-laptop"))
    found = {
        "username": "deploy",
        "path": "/home/deploy/.ssh/authorized_keys",
        "kind": "key",
        "line": 3,
        "type": key.type,
        "fingerprint": key.fingerprint,
        "key": key.canonical,
        "comment": key.comment,
        "in_force": True,
    }
    host.report(found)
    signed_in(page, "olga").goto("/")
    page.get_by_role("link", name="Decide").click()
    row = page.get_by_role("table", name="Unmanaged keys").get_by_role("row", name="somebody@old-laptop")
    expect(row).to_contain_text("lets in")
    row.get_by_role("button", name="Remove").click()
    expect(page.locator("#messages")).to_contain_text("somebody@old-laptop out of /home/deploy/.ssh/authorized_keys")
    expect(page.get_by_role("main")).to_contain_text("whoever holds it can no longer log in with it as deploy")
    expect(row).to_contain_text("being removed")
    host.report()
    page.reload()
    expect(page.get_by_text("nothing opens this host that Keyrack did not put there")).to_be_visible()
    page.get_by_role("button", name="Let it in again").click()
    expect(page.get_by_role("table", name="Access")).to_contain_text("deploy")
    expect(page.get_by_role("button", name="Let it in again")).to_be_hidden()
    # Who logs in meanwhile is seen without doing anything.
    started = f"{host.service.instance.now():%Y-%m-%dT%H:%M:%SZ}"
    login = {
        "id": "7-1",
        "user": "deploy",
        "address": "203.0.113.9",
        "fingerprint": key.fingerprint,
        "started_at": started,
    }
    expect(page.locator("[data-live-words]")).to_have_text("Live.")
    host.report(sessions=[login])
    sessions = page.get_by_role("table", name="Sessions")
    expect(sessions).to_contain_text("203.0.113.9")
    sessions.get_by_role("button", name="End the login of deploy").click()
    expect(page.get_by_role("main")).to_contain_text("The login of deploy on web-1 from 203.0.113.9 ends at once")
    page.get_by_role("link", name="Back").click()
    sessions.get_by_role("button", name="End the login of deploy").click()
    page.get_by_role("button", name="End this login on web-1").click()
    expect(page.get_by_role("table", name="Sessions")).to_contain_text("ending")
    host.report(sessions=[])
    expect(page.get_by_text("Nobody is logged in.")).to_be_visible()


def test_removing_a_person_shows_host_by_host_that_they_are_out(
    page: Page, console: Service, host: Host, signed_in: SignedIn
) -> None:
    bob = person(console, "bob", keys=(fresh_line(),))
    grants.give(console.instance, KEYRACK, user_id=bob.id, server_id=1, system_user="deploy")
    host.report()
    signed_in(page, "olga").goto("/people/bob")
    expect(page.get_by_role("table", name="Where they can log in")).to_contain_text("web-1")
    page.get_by_role("button", name="Offboard", exact=True).click()
    expect(page.get_by_text("1 host will be told")).to_be_visible()
    page.get_by_label("Type the name to confirm").fill("bop")
    page.get_by_role("button", name="Offboard bob").click()
    expect(page.get_by_label("Type the name to confirm")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Type the name to confirm").fill("bob")
    page.get_by_role("button", name="Offboard bob").click()
    receipt = page.locator("#receipt")
    expect(receipt).to_contain_text("Done on 0 of 1 host")
    host.report()
    expect(receipt).to_contain_text("Done everywhere")
    expect(receipt.get_by_role("table", name="Receipt")).to_contain_text("refuses them")
    # Whoever goes back to it, or did not know, reads that it is done.
    page.goto("/offboard/bob")
    expect(page.get_by_role("main")).to_contain_text("Disabled just now: nothing of theirs opens anything.")


def test_one_person_asks_for_access_and_another_approves(
    page: Page, other_page: Page, console: Service, host: Host, signed_in: SignedIn
) -> None:
    other_page.context.add_cookies([{"name": COOKIE, "value": session_of(console, "mallory"), "url": console.url}])
    other_page.goto("/requests")
    other_page.get_by_role("button", name="Ask for access").click()
    other_page.get_by_label("Host", exact=True).fill("web-1")
    other_page.get_by_label("Account").fill("deploy")
    other_page.get_by_label("Why").fill("the shop is down")
    other_page.get_by_role("button", name="Ask for access").click()
    mine = other_page.get_by_role("table", name="Waiting")
    expect(mine).to_contain_text("the shop is down")
    expect(mine.get_by_role("button", name="Approve")).to_have_count(0)

    signed_in(page, "olga").goto("/requests")
    waiting = page.get_by_role("table", name="Waiting").get_by_role("row", name="the shop is down")
    waiting.get_by_label("A word to mallory").fill("until the shop is up again")
    waiting.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("table", name="Decided")).to_contain_text("open")
    # Who asked sees it without doing anything.
    expect(other_page.get_by_role("table", name="Decided")).to_contain_text("open until")
    expect(other_page.get_by_role("table", name="Decided")).to_contain_text("until the shop is up again")


def test_a_page_that_updates_itself_keeps_the_focus_and_typed_text(
    page: Page, console: Service, host: Host, signed_in: SignedIn
) -> None:
    def ask(reason: str) -> None:
        user = person(console, "mallory")
        actor = web_sessions.actor_of(user, address="192.0.2.44")
        requests.ask(
            console.instance, actor, server="web-1", tag=None, system_user="deploy", duration="1h", reason=reason
        )

    ask("apple")
    signed_in(page, "olga").goto("/requests")
    expect(page.locator("[data-live-words]")).to_have_text("Live.")
    apple = page.get_by_role("row", name="apple")
    word = apple.get_by_label("A word to mallory")
    word.click()
    # Whoever is in a field, also in an empty one, is left there; what moved shows once they leave it.
    with page.expect_response(lambda answer: answer.url.endswith("/requests")):
        ask("banana")
    page.keyboard.insert_text("go on")
    expect(word).to_have_value("go on")
    page.keyboard.press("Tab")
    expect(page.get_by_role("row", name="banana")).to_be_visible()
    expect(apple.get_by_role("button", name="Approve")).to_be_focused()
    ask("cherry")
    expect(page.get_by_role("row", name="cherry")).to_be_visible()
    expect(word).to_have_value("go on")
    page.keyboard.press("Enter")
    expect(page.get_by_role("table", name="Decided").get_by_role("row", name="apple")).to_contain_text("go on")


def test_a_grant_says_what_it_does_and_two_tabs_take_it_back(
    page: Page, console: Service, host: Host, signed_in: SignedIn
) -> None:
    person(console, "alice", keys=(fresh_line(),))
    signed_in(page, "olga").goto("/access")
    page.get_by_role("button", name="Grant access").click()
    page.get_by_label("Their name").fill("alice")
    page.get_by_label("Host or tag").fill("web-1")
    page.get_by_label("Account").fill("deploy")
    page.get_by_role("button", name="See what it does").click()
    expect(page.get_by_text("alice as deploy on web-1")).to_be_visible()
    page.get_by_role("button", name="Grant access").click()
    row = page.get_by_role("table", name="Access map").get_by_role("row", name="alice")
    row.get_by_role("link", name="deploy").click()
    expect(page.get_by_text("because access was granted")).to_be_visible()

    page.get_by_role("link", name="Take the grant back").click()
    second = page.context.new_page()
    second.goto(page.url)
    expect(second.get_by_text("alice as deploy on web-1")).to_be_visible()
    page.get_by_role("button", name="Take back from 1 host").click()
    expect(page.locator("#messages")).to_contain_text("taken back")
    second.get_by_role("button", name="Take back from 1 host").click()
    expect(second.get_by_role("main")).to_contain_text(re.compile("no .*grant|grant.* not", re.IGNORECASE))
    page.goto("/access")
    expect(page.get_by_role("row", name="alice")).to_have_count(0)


def test_a_temporary_key_visibly_ends(page: Page, console: Service, host: Host, signed_in: SignedIn) -> None:
    alice = person(console, "alice")
    grants.give(console.instance, KEYRACK, user_id=alice.id, server_id=1, system_user="deploy")
    signed_in(page, "alice").goto("/keys?add=1")
    page.get_by_label("Public key").fill(fresh_line())
    page.get_by_label("Title").fill("borrowed laptop")
    page.get_by_label("Ends").select_option("1 h")
    page.get_by_role("button", name="Add key").click()
    expect(page.locator("#delivery")).to_contain_text("web-1")
    address = page.url
    before = console.instance.now
    object.__setattr__(console.instance, "now", lambda: before() + timedelta(minutes=61))
    try:
        expect(page.locator("#delivery")).to_contain_text("It has ended")
        # Keyrack takes it away soon after; the open page, and whoever comes back to it, still read why.
        endings.end_user_keys(console.instance, KEYRACK)
        page.goto("/keys")
        expect(page.get_by_role("heading", name="My keys")).to_be_visible()
        expect(page.get_by_role("table", name="My keys").get_by_role("row", name="borrowed laptop")).to_have_count(0)
        ended = page.get_by_role("table", name="Ended keys").get_by_role("row", name="borrowed laptop")
        expect(ended).to_contain_text("ended")
        page.goto(address)
        expect(page.get_by_text("This key reached its end on")).to_be_visible()
    finally:
        object.__setattr__(console.instance, "now", before)


def test_an_open_page_shows_what_happened_to_its_key(page: Page, console: Service, signed_in: SignedIn) -> None:
    alice = person(console, "alice")
    line = fresh_line()
    key = user_keys.add(console.instance, KEYRACK, title="short", public_key=line, user_id=alice.id)
    signed_in(page, "alice").goto(f"/keys/{key.fingerprint}")
    expect(page.locator("[data-live-words]")).to_have_text("Live.")
    user_keys.delete(console.instance, KEYRACK, key.id, user_id=alice.id)
    expect(page.locator("#delivery")).to_contain_text("It was removed")
    expect(page.locator("[data-live-words]")).to_have_text("Live.")


def test_a_key_is_added_and_deleted_by_keyboard_alone(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "alice").goto("/")
    page.keyboard.press("g")
    page.keyboard.press("k")
    expect(page).to_have_url(re.compile("/keys$"))
    _press(page, page.get_by_role("button", name="Add key"))
    expect(page.get_by_label("Public key")).to_be_focused()
    page.keyboard.insert_text(f"{fresh_line()} alice@keyboard")
    _reach(page, page.get_by_label("Title"))
    expect(page.get_by_label("Title")).to_have_value("alice@keyboard")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/keys/SHA256"))
    _press(page, page.get_by_role("button", name=re.compile("^Remove this key")))
    expect(page.get_by_role("heading", name=re.compile("^Remove your key"))).to_be_visible()
    _press(page, page.get_by_role("button", name=re.compile("^Remove this key")))
    expect(page.locator("#messages")).to_contain_text("alice@keyboard is removed")


def _reach(page: Page, place: Locator) -> None:
    """Press Tab until the place has the keyboard, and shows that it has."""
    expect(place).to_be_visible()
    for _ in range(80):
        if place.evaluate("(element) => element === document.activeElement"):
            assert place.evaluate("(element) => element.matches(':focus-visible')")
            return
        page.keyboard.press("Tab")
    raise AssertionError("the keyboard does not come there")


def _press(page: Page, button: Locator) -> None:
    _reach(page, button)
    page.keyboard.press("Enter")
