"""What somebody wrote is not lost: a session that ends, a network that goes away, a form that is pressed twice."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Page, expect

from keyrack.core.hosts import server_changes, servers
from keyrack.core.keys import grants, requests
from keyrack.core.people import actors, users, web_sessions
from keyrack.model import Role
from tests.console.conftest import COOKIE, SignedIn, session_of
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

KEYRACK = actors.system_actor(1)
BACK = "What you wrote is back in its form"


def user_id(console: Service, name: str) -> int:
    """The id of somebody of the team."""
    return next(one.id for one in users.find(console.instance, KEYRACK) if one.name == name)


def end_sessions(console: Service, name: str) -> None:
    """End every session of somebody."""
    for session in web_sessions.of_user(console.instance, KEYRACK, name):
        web_sessions.end(console.instance, KEYRACK, session.id, user_id=user_id(console, name))


def sign_in(page: Page, name: str) -> None:
    """Sign in by the form that is shown."""
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(f"{name}'s password")
    page.get_by_role("button", name="Sign in").click()


def write_request(page: Page, why: str) -> None:
    """Fill in the form that asks for access."""
    page.get_by_label("Host", exact=True).fill("web-1")
    page.get_by_label("Account").fill("deploy")
    page.get_by_label("Why").fill(why)


def test_a_form_keeps_its_text_when_the_session_ends(page: Page, console: Service, signed_in: SignedIn) -> None:
    line = f"{fresh_line()} alice@train"
    signed_in(page, "alice").goto("/keys?add=1")
    page.get_by_label("Public key").fill(line)
    page.get_by_label("Title").fill("a title of mine")
    page.get_by_label("Ends").select_option("12 h")
    end_sessions(console, "alice")
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_role("heading", name="Your session has ended")).to_be_visible()
    expect(page.get_by_text("What you wrote is kept in this tab")).to_be_visible()
    page.get_by_role("link", name="Sign in").click()
    sign_in(page, "alice")
    expect(page.locator("#messages")).to_contain_text(BACK)
    expect(page.get_by_label("Public key")).to_have_value(line)
    expect(page.get_by_label("Title")).to_have_value("a title of mine")
    expect(page.get_by_label("Ends")).to_have_value("12h")
    expect(page.locator("#verdict")).to_contain_text("A sound key")
    page.get_by_role("button", name="Add key").click()
    expect(page.locator("#messages")).to_contain_text("a title of mine is registered")
    # What was answered does not come back.
    page.goto("/keys?add=1")
    expect(page.get_by_label("Public key")).to_have_value("")


def test_a_reloaded_or_revisited_page_still_has_the_typed_text(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "alice").goto("/requests?ask=1")
    write_request(page, "half a sen")
    page.reload()
    expect(page.get_by_label("Why")).to_have_value("half a sen")
    expect(page.get_by_label("Account")).to_have_value("deploy")
    # Also where nothing was added to what came back, and over pages in between.
    page.reload()
    expect(page.get_by_label("Why")).to_have_value("half a sen")
    page.get_by_label("Why").fill("half a sentence")
    page.get_by_role("link", name="My keys").click()
    expect(page.get_by_role("heading", name="My keys")).to_be_visible()
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    page.go_back()
    page.go_back()
    expect(page.get_by_label("Why")).to_have_value("half a sentence")
    expect(page.locator("#messages")).to_contain_text(BACK)
    # Who comes anew begins anew, and what was sent does not come back.
    page.goto("/requests?ask=1")
    expect(page.get_by_label("Why")).to_have_value("")
    write_request(page, "whole")
    page.get_by_role("button", name="Ask for access").click()
    expect(page.locator("main")).to_contain_text("whole")
    page.go_back()
    expect(page.get_by_label("Why")).to_have_value("")


def test_the_next_person_who_signs_in_does_not_see_text_that_another_wrote(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    signed_in(page, "alice").goto("/requests?ask=1")
    write_request(page, "the reason of alice")
    end_sessions(console, "alice")
    page.get_by_role("button", name="Ask for access").click()
    page.get_by_role("link", name="Sign in").click()
    sign_in(page, "bob")
    expect(page).to_have_url(re.compile(r"/requests\?ask=1$"))
    expect(page.get_by_label("Why")).to_have_value("")
    page.wait_for_function("sessionStorage.getItem('keyrack-draft') === null")


def test_a_form_that_is_restored_overwrites_no_change_of_others(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    made = servers.create(console.instance, KEYRACK, name="shop", address="192.0.2.60")
    signed_in(page, "olga").goto(f"/hosts/{made.id}/change")
    page.get_by_label("Name", exact=True).fill("shop-of-olga")
    end_sessions(console, "olga")
    page.get_by_role("button", name="Change it").click()
    server_changes.change(console.instance, KEYRACK, made.id, name="shop-of-bob")
    page.get_by_role("link", name="Sign in").click()
    sign_in(page, "olga")
    expect(page.get_by_label("Name", exact=True)).to_have_value("shop-of-olga")
    page.get_by_role("button", name="Change it").click()
    expect(page.get_by_text("It is shop-of-bob at 192.0.2.60 now")).to_be_visible()


def test_a_session_that_ends_does_not_leave_the_page_being_typed_on(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    line = fresh_line()
    signed_in(page, "bob").goto("/keys?add=1")
    end_sessions(console, "bob")
    page.get_by_label("Public key").fill(line)
    expect(page.locator("#messages")).to_contain_text("your session has ended")
    expect(page.get_by_label("Public key")).to_have_value(line)
    # Another session begins in another tab: this page's form is not of it, and still nothing is lost.
    page.context.add_cookies([{"name": COOKIE, "value": session_of(console, "bob"), "url": console.url}])
    page.get_by_label("Title").fill("desk")
    page.get_by_role("button", name="Add key").click()
    page.get_by_role("link", name="Back to the form").click()
    expect(page.get_by_label("Public key")).to_have_value(line)
    page.get_by_role("button", name="Add key").click()
    expect(page.locator("#messages")).to_contain_text("desk is registered")


def test_a_form_keeps_its_text_when_the_network_goes_away(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "alice").goto("/requests?ask=1")
    page.goto("/keys?add=1")
    page.context.set_offline(True)
    expect(page.locator("#messages")).to_contain_text("no network")
    page.get_by_role("textbox", name="Title").fill("written in a tunnel")
    page.get_by_label("Public key").fill(fresh_line())
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Add key").click()
    page.wait_for_url(re.compile("chrome-error"))
    page.context.set_offline(False)
    page.go_back()
    expect(page.locator("#messages")).to_contain_text(BACK)
    expect(page.get_by_role("textbox", name="Title")).to_have_value("written in a tunnel")


def test_a_form_that_is_pressed_twice_is_sent_once(page: Page, console: Service, signed_in: SignedIn) -> None:
    sent: list[Any] = []
    signed_in(page, "bob").goto("/requests?ask=1")
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    write_request(page, "pressed twice")
    page.get_by_role("button", name="Ask for access").dblclick()
    expect(page.get_by_role("table", name="Waiting")).to_contain_text("pressed twice")
    assert len(sent) == 1
    waiting, _ = requests.page(console.instance, KEYRACK, state="pending", cursor="", limit=50)
    assert [one.reason for one in waiting.items].count("pressed twice") == 1


def test_no_password_and_no_private_key_is_kept(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/people?add=1")
    page.get_by_label("Name", exact=True).fill("olga")
    page.get_by_label("First password").fill("correct horse battery")
    page.route("**/people", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Add person").click()
    page.wait_for_url(re.compile("chrome-error"))
    page.unroute("**/people")
    page.go_back()
    expect(page.get_by_label("Name", exact=True)).to_have_value("olga")
    expect(page.get_by_label("First password")).to_have_value("")
    page.get_by_label("Name", exact=True).fill("-----BEGIN OPENSSH PRIVATE KEY-----")
    page.route("**/people", lambda route: route.abort())
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Add person").click()
    page.wait_for_url(re.compile("chrome-error"))
    page.go_back()
    expect(page.get_by_label("Name", exact=True)).to_have_value("")


def test_a_preview_leads_back_to_the_written_form_and_nothing_is_granted_twice(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    signed_in(page, "olga").goto("/access/grant")
    page.get_by_label("Their name").fill("bob")
    page.get_by_label("Host or tag").fill("web-1")
    page.get_by_label("Account").fill("deploy")
    page.get_by_label("Why").fill("the shop")
    page.get_by_role("button", name="See what it does").click()
    page.get_by_role("link", name="Back").click()
    expect(page.get_by_label("Why")).to_have_value("the shop")
    expect(page.get_by_label("Their name")).to_have_value("bob")
    page.get_by_role("button", name="See what it does").click()
    page.get_by_role("button", name="Grant access").click()
    expect(page.locator("#messages")).to_contain_text("bob may log in as deploy")
    # Back in the browser is the form, as nobody wrote in it, and no page of the browser's own.
    page.go_back()
    expect(page.get_by_role("heading", name="Grant access")).to_be_visible()
    expect(page.get_by_label("Their name")).to_have_value("")
    assert len(grants.page(console.instance, KEYRACK).items) == 1


def test_a_secret_is_shown_once_also_when_the_page_is_loaded_again(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "alice").goto("/settings")
    page.get_by_text("Make a token of your own").click()
    page.get_by_label("Name", exact=True).fill("robot")
    page.get_by_role("button", name="Make the token").click()
    expect(page.get_by_role("heading", name="Token robot")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Name", exact=True)).to_have_value("")


def test_a_form_that_was_refused_is_there_again_where_it_stands(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "bob").goto("/keys?add=1")
    page.get_by_label("Public key").fill("ssh-ed25519 AAAA")
    page.get_by_role("textbox", name="Title").fill("half a key")
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_label("Public key")).to_have_attribute("aria-invalid", "true")
    page.reload()
    expect(page.locator("#messages")).to_contain_text(BACK)
    expect(page.get_by_role("textbox", name="Title")).to_have_value("half a key")


def test_a_person_who_lost_the_right_to_send_a_form_is_not_sent_to_its_page(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    rita = users.create_user(console.instance, KEYRACK, name="rita", role=Role.ADMIN, password="rita's password")
    signed_in(page, "rita").goto("/access/grant")
    page.get_by_label("Their name").fill("bob")
    page.get_by_label("Host or tag").fill("web-1")
    page.get_by_label("Account").fill("deploy")
    page.get_by_label("Why").fill("a long reason")
    users.change_rights(console.instance, KEYRACK, rita.id, role=Role.MEMBER, policies=())
    page.get_by_role("button", name="See what it does").click()
    expect(page.get_by_role("heading", name="Not yours to do")).to_be_visible()
    expect(page.get_by_text("is back in its form once you may do this")).to_be_visible()
    expect(page.get_by_role("link", name="Back to the form")).to_have_count(0)
    page.get_by_role("link", name="To the overview").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    users.change_rights(console.instance, KEYRACK, rita.id, role=Role.ADMIN, policies=())
    page.goto("/access/grant")
    expect(page.get_by_label("Why")).to_have_value("a long reason")


def test_a_form_of_something_deleted_is_not_offered_again(page: Page, console: Service, signed_in: SignedIn) -> None:
    made = servers.create(console.instance, KEYRACK, name="short-lived", address="192.0.2.61")
    signed_in(page, "olga").goto(f"/hosts/{made.id}/change")
    page.get_by_label("Name", exact=True).fill("renamed")
    servers.delete(console.instance, KEYRACK, made.id)
    page.get_by_role("button", name="Change it").click()
    expect(page.get_by_role("heading", name="Not there")).to_be_visible()
    expect(page.get_by_role("link", name="Back to the form")).to_have_count(0)
