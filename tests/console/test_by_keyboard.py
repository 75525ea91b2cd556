"""What people come for, done from begin to end without a mouse: every stop is seen, and none holds the keyboard."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from keyrack.core.hosts import host_keys
from keyrack.core.keys import grants
from keyrack.core.people import actors
from keyrack.ssh.public_key import parse
from tests.console.conftest import COOKIE, SignedIn, session_of
from tests.console.enrolled_host import Host, person
from tests.console.enrolled_host import host as host
from tests.console.keyboard import Keyboard
from tests.console.test_keys_and_hosts import PRIVATE
from tests.console.test_second_factors import at_a_name as at_a_name
from tests.console.test_second_factors import authenticator, code_of
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

KEYRACK = actors.system_actor(1)


@pytest.fixture
def keys(page: Page) -> Keyboard:
    """The keyboard of the page."""
    return Keyboard(page)


def test_the_first_visit_is_made_by_keyboard_alone(page: Page, keys: Keyboard, console: Service, host: Host) -> None:
    alice = person(console, "alice")
    grants.give(console.instance, KEYRACK, user_id=alice.id, server_id=1, system_user="deploy")
    page.goto("/login")
    # The first field has the keyboard already.
    expect(page.get_by_label("User name")).to_be_focused()
    page.keyboard.insert_text("alice")
    keys.write(page.get_by_label("Password"), "alice's password")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/welcome$"))
    keys.write(page.get_by_label("Present password"), "alice's password")
    keys.write(page.get_by_label("New password", exact=True), "a password of my own")
    keys.write(page.get_by_label("New password once more"), "a password of my own")
    keys.press(page.get_by_role("button", name="Change password"))
    keys.write(page.get_by_label("Public key"), fresh_line("alice@laptop"))
    keys.press(page.get_by_role("button", name="Add key"))
    expect(page.get_by_text("ssh deploy@192.0.2.10")).to_be_visible()
    keys.press(page.get_by_role("button", name=re.compile("^Copy")).first)
    keys.press(page.get_by_role("main").get_by_role("link", name=re.compile("overview", re.IGNORECASE)))
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()


def test_an_alarm_links_to_what_to_do(
    page: Page, keys: Keyboard, console: Service, host: Host, signed_in: SignedIn
) -> None:
    first, other = fresh_line(), fresh_line()
    host.report(host_keys={"port": 22, "keys": [first]})
    host.report(host_keys={"port": 22, "keys": [other]})
    signed_in(page, "olga").goto("/")
    alarm = page.get_by_role("listitem").filter(has_text="shows a host key that nobody confirmed")
    # It is the first thing that the page says.
    expect(page.get_by_role("main").get_by_role("listitem").first).to_contain_text("shows a host key")
    keys.press(alarm.get_by_role("link"))
    expect(page.locator("#state")).to_contain_text("Its host key is not the one that people trust")
    expect(page.locator("#state")).to_contain_text("Was it installed anew")
    keys.press(page.get_by_role("button", name="Confirm the host key"))
    expect(page.get_by_role("main")).to_contain_text(f"is no longer trusted: {parse(first).fingerprint}")
    keys.press(page.get_by_role("button", name="Confirm the host key"))
    expect(page.locator("#messages")).to_contain_text("People may trust the host key from now on")
    expect(page.locator("#state")).not_to_contain_text("Its host key is not")
    trusted = host_keys.find(console.instance, KEYRACK, "1")
    assert [(one.fingerprint, one.confirmed) for one in trusted] == [(parse(other).fingerprint, True)]


def test_a_key_that_ends_and_a_private_one(page: Page, keys: Keyboard, host: Host, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/")
    keys.go("k")
    expect(page).to_have_url(re.compile("/keys$"))
    keys.press(page.get_by_role("button", name="Add key"), "Space")
    expect(page.get_by_label("Public key")).to_be_focused()
    page.keyboard.insert_text(PRIVATE)
    expect(page.locator("#verdict")).to_contain_text("private key")
    expect(page.get_by_label("Public key")).to_have_value("")
    page.keyboard.insert_text(f"{fresh_line()} olga@borrowed")
    expect(page.get_by_label("Title")).to_have_value("olga@borrowed")
    keys.choose(page.get_by_label("Ends"), "1 h")
    keys.press(page.get_by_role("button", name="Add key"))
    expect(page).to_have_url(re.compile("/keys/SHA256"))
    keys.press(page.get_by_role("button", name=re.compile("^Remove this key")))
    expect(page.get_by_role("heading", name=re.compile("^Remove your key"))).to_be_visible()
    keys.press(page.get_by_role("button", name=re.compile("^Remove this key")))
    expect(page.locator("#messages")).to_contain_text("olga@borrowed is removed")


def test_a_host_is_added(page: Page, keys: Keyboard, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/")
    keys.go("h")
    keys.press(page.get_by_role("button", name="Add host"))
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.insert_text("fresh-1")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Waiting for the host…")).to_be_visible()
    keys.press(page.get_by_role("button", name=re.compile("^Copy")).first)
    keys.press(page.get_by_role("link", name="To the host's page"))
    keys.press(page.get_by_role("button", name="Enforce"))
    expect(page.get_by_text("Nobody: no key of Keyrack's opens this host")).to_be_visible()


def test_drift_is_found_and_removed(page: Page, keys: Keyboard, host: Host, signed_in: SignedIn) -> None:
    key = parse(fresh_line("somebody@old-laptop"))
    found = {
        **{"username": "deploy", "path": "/home/deploy/.ssh/authorized_keys", "kind": "key", "line": 3},
        **{"type": key.type, "fingerprint": key.fingerprint, "key": key.canonical, "comment": key.comment},
        "in_force": True,
    }
    host.report(found)
    signed_in(page, "olga").goto("/")
    keys.press(page.get_by_role("listitem").filter(has_text="unmanaged key").get_by_role("link", name="Decide"))
    row = page.get_by_role("table", name="Unmanaged keys").get_by_role("row", name="somebody@old-laptop")
    keys.press(row.get_by_role("button", name="Remove"))
    expect(page.get_by_role("main")).to_contain_text("whoever holds it can no longer log in with it as deploy")
    expect(row).to_contain_text("being removed")
    host.report()


def test_a_person_who_leaves_is_removed_in_the_console(
    page: Page, keys: Keyboard, console: Service, host: Host, signed_in: SignedIn
) -> None:
    bob = person(console, "bob", keys=(fresh_line(),))
    grants.give(console.instance, KEYRACK, user_id=bob.id, server_id=1, system_user="deploy")
    host.report()
    signed_in(page, "olga").goto("/")
    page.keyboard.press("/")
    page.keyboard.insert_text("bob")
    expect(page.get_by_role("listbox", name="Found").get_by_role("option", name="bob")).to_be_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="bob", level=1)).to_be_visible()
    keys.press(page.get_by_role("button", name="Offboard", exact=True))
    keys.write(page.get_by_label("Type the name to confirm"), "bob")
    keys.press(page.get_by_role("button", name="Offboard bob"))
    expect(page.locator("#receipt")).to_contain_text("Done on 0 of 1 host")
    host.report()
    expect(page.locator("#receipt")).to_contain_text("Done everywhere")


def test_one_person_asks_for_access_and_another_approves(
    page: Page, keys: Keyboard, chromium: Browser, console: Service, host: Host, signed_in: SignedIn
) -> None:
    context = chromium.new_context(base_url=console.url)
    context.add_cookies([{"name": COOKIE, "value": session_of(console, "mallory"), "url": console.url}])
    other = context.new_page()
    hers = Keyboard(other)
    other.goto("/")
    hers.go("r")
    hers.press(other.get_by_role("button", name="Ask for access"))
    hers.write(other.get_by_label("Host", exact=True), "web-1")
    other.keyboard.press("Escape")  # what it offers
    hers.write(other.get_by_label("Account"), "deploy")
    hers.write(other.get_by_label("Why"), "the shop is down")
    hers.press(other.get_by_role("button", name="Ask for access"))
    expect(other.get_by_role("table", name="Waiting")).to_contain_text("the shop is down")

    signed_in(page, "olga").goto("/")
    keys.go("r")
    waiting = page.get_by_role("table", name="Waiting").get_by_role("row", name="the shop is down")
    keys.write(waiting.get_by_label("A word to mallory"), "until it is up again")
    keys.press(waiting.get_by_role("button", name="Approve"))
    expect(page.get_by_role("table", name="Decided")).to_contain_text("open")
    expect(other.get_by_role("table", name="Decided")).to_contain_text("until it is up again")
    context.close()


def test_access_is_granted_on_the_map_and_taken_back_in_one_of_two_tabs(
    page: Page, keys: Keyboard, console: Service, host: Host, signed_in: SignedIn
) -> None:
    person(console, "audrey", keys=(fresh_line(),))
    signed_in(page, "olga").goto("/")
    keys.go("a")
    keys.press(page.get_by_role("button", name="Grant access"))
    keys.choose(page.get_by_label("Whom"), "a person")
    keys.write(page.get_by_label("Their name"), "audrey")
    page.keyboard.press("Escape")
    keys.write(page.get_by_label("Host or tag"), "web-1")
    page.keyboard.press("Escape")
    keys.write(page.get_by_label("Account"), "deploy")
    keys.press(page.get_by_text("What it may do, and from where"), "Space")
    keys.press(page.get_by_role("button", name="See what it does"))
    expect(page.get_by_text("audrey as deploy on web-1")).to_be_visible()
    keys.press(page.get_by_role("button", name="Grant access"))
    row = page.get_by_role("table", name="Access map").get_by_role("row", name="audrey")
    keys.press(row.get_by_role("link", name="deploy"))
    keys.press(page.get_by_role("link", name="Take the grant back"))
    expect(page.get_by_role("button", name="Take back from 1 host")).to_be_visible()
    second = page.context.new_page()
    second.goto(page.url)
    keys.press(page.get_by_role("button", name="Take back from 1 host"))
    expect(page.locator("#messages")).to_contain_text("taken back")
    Keyboard(second).press(second.get_by_role("button", name="Take back from 1 host"))
    expect(second.get_by_role("main")).to_contain_text(re.compile("no .*grant|grant.* not", re.IGNORECASE))
    # And on from there, not only back.
    Keyboard(second).press(second.get_by_role("main").get_by_role("link").first)


def test_a_token_is_made_and_revoked(page: Page, keys: Keyboard, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/")
    keys.go("s")
    keys.press(page.locator("summary").filter(has_text=re.compile("token", re.IGNORECASE)).first)
    keys.write(page.get_by_label("Name", exact=True), "of the keyboard")
    keys.write(page.get_by_label("What it may do"), "servers:read")
    keys.press(page.get_by_role("button", name="Make the token"))
    keys.press(page.get_by_role("main").get_by_role("button", name=re.compile("^Copy")).first)
    keys.press(page.get_by_role("main").get_by_role("link").last)
    row = page.get_by_role("table", name="Tokens").get_by_role("row", name="of the keyboard")
    keys.press(row.get_by_role("button"))
    keys.press(page.get_by_role("main").get_by_role("button", name=re.compile("Revoke")))
    expect(row).to_have_count(0)


def test_codes_from_an_app(page: Page, keys: Keyboard, console: Service, signed_in: SignedIn) -> None:
    signed_in(page, "mallory").goto("/settings/sign-in")
    keys.press(page.get_by_role("button", name="Use codes from an app"))
    secret = page.locator("[data-copy]").first.get_attribute("data-copy")
    assert secret is not None
    keys.write(page.get_by_label("Code", exact=True), code_of(secret, console))
    page.keyboard.press("Enter")
    keys.press(page.get_by_role("link", name="I have them"))
    expect(page.get_by_role("table", name="Second factors")).to_be_visible()
    keys.press(page.locator("details.menu summary"))
    keys.press(page.get_by_role("button", name="Sign out"))
    expect(page.get_by_label("User name")).to_be_focused()
    page.keyboard.insert_text("mallory")
    keys.write(page.get_by_label("Password"), "mallory's password")
    page.keyboard.press("Enter")
    clock = console.instance.now
    object.__setattr__(console.instance, "now", lambda: clock() + timedelta(seconds=60))
    try:
        code = page.get_by_label(re.compile("Code", re.IGNORECASE))
        keys.write(code, code_of(secret, console))
        page.keyboard.press("Enter")
        expect(page.get_by_role("navigation", name="Console", exact=True)).to_be_visible()
    finally:
        object.__setattr__(console.instance, "now", clock)


def test_a_passkey(at_a_name: BrowserContext, console: Service) -> None:
    page = at_a_name.new_page()
    keys = Keyboard(page)
    authenticator(page)
    url = console.url.replace("127.0.0.1", "localhost")
    at_a_name.add_cookies([{"name": COOKIE, "value": session_of(console, "olga"), "url": url}])
    page.goto("/settings/sign-in")
    keys.write(page.get_by_label("Name"), "laptop")
    keys.press(page.get_by_role("button", name="Add a passkey"))
    keys.press(page.get_by_role("link", name="I have them"))
    expect(page.get_by_role("table", name="Second factors")).to_contain_text("laptop")
    at_a_name.clear_cookies()
    page.goto("/login")
    keys.press(page.get_by_role("button", name="Use a passkey"))
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
