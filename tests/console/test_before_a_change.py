"""What a page says before and after a change: previews, confirmation, one's own tokens, errors within the frame."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Browser, Page, expect

from keyrack.core.audit import events
from keyrack.core.hosts import servers, system_users
from keyrack.core.keys import (
    changing_grants,
    credentials,
    freezes,
    grants,
    key_sources,
    last_uses,
    revocation,
    user_keys,
)
from keyrack.core.people import actors, api_tokens, users
from keyrack.model import Credential, EventFilter, Server, UserKey
from keyrack.store.keys import key_sources as source_rows
from tests.console.conftest import SignedIn
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.waiting import wait_until


@pytest.fixture
def host(console: Service) -> Server:
    """A host of this test's own, with an account."""
    keyrack = actors.system_actor(1)
    made = servers.create(console.instance, keyrack, name="shop-1", address="192.0.2.77")
    system_users.create(console.instance, keyrack, made.id, username="www")
    return made


@pytest.fixture
def key(console: Service, host: Server) -> Credential:
    """A key on its account."""
    line = fresh_line("ci")
    keyrack = actors.system_actor(1)
    return credentials.add(console.instance, keyrack, host.id, label="pipeline", username="www", public_key=line)


@pytest.fixture
def elsewhere(console: Service, host: Server) -> UserKey:
    """A key that alice has from an account elsewhere, and that opens the host."""
    keyrack, instance = actors.system_actor(1), console.instance
    grants.give_named(instance, keyrack, user="alice", server="shop-1", system_user="www")
    alice = next(user for user in users.find(instance, keyrack) if user.name == "alice")
    made = user_keys.add(instance, keyrack, title="github: alice-elsewhere", public_key=fresh_line(), user_id=alice.id)
    source = key_sources.put(instance, keyrack, "alice", "github", account="alice-elsewhere")
    # Nobody looks there meanwhile.
    values = {"keys": {made.fingerprint: made.id}, "next_at": instance.now() + timedelta(days=1)}
    instance.database.write(lambda connection: source_rows.change(connection, source.id, values))
    return made


def test_removing_an_account_elsewhere_names_its_keys_first(
    page: Page, console: Service, signed_in: SignedIn, elsewhere: UserKey
) -> None:
    signed_in(page, "olga").goto("/people/alice")
    page.get_by_role("button", name="Take no more keys from alice-elsewhere").click()
    main = page.get_by_role("main")
    expect(main).to_contain_text("Keys that came from alice-elsewhere at https://github.com are withdrawn")
    expect(main).to_contain_text("Who loses")
    expect(main).to_contain_text("alice as www on shop-1")
    page.get_by_role("button", name="Take no more keys").click()
    expect(page.locator("#messages")).to_contain_text("those that came from it are withdrawn")
    keys, *_ = last_uses.user_keys(console.instance, actors.system_actor(1), user="alice", offset=0, limit=100)
    assert elsewhere.id not in {one.id for one in keys.items}


def held(console: Service, key: Credential) -> dict[str, object]:
    """What the key is restricted to by now."""
    return dict(credentials.get(console.instance, actors.system_actor(1), key.server_id, key.id).restrictions)


def test_a_keys_restrictions_are_shown_before_they_change(
    page: Page, console: Service, signed_in: SignedIn, host: Server, key: Credential
) -> None:
    signed_in(page, "olga").goto(f"/hosts/{host.id}/keys/{key.id}")
    page.get_by_text("Change what it may do").click()
    page.get_by_label("From where").fill("10.0.0.0/8 *.example.org")
    page.get_by_label("Port forwarding").select_option("not allowed")
    page.get_by_role("button", name="See what it changes").click()
    table = page.get_by_role("table", name="What it may do")
    expect(table.get_by_role("row", name="From where")).to_contain_text("10.0.0.0/8 *.example.org")
    expect(table.get_by_role("row", name="Port forwarding")).to_contain_text("not allowed")
    expect(page.get_by_role("main")).to_contain_text("www on shop-1")
    assert held(console, key) == {}
    page.get_by_role("button", name="Restrict it like that").click()
    expect(page.locator("#messages")).to_contain_text("sessions that are open go on")
    expect(page.locator("#messages")).not_to_contain_text("What you wrote is back")
    assert held(console, key) == {"sources": ["10.0.0.0/8", "*.example.org"], "port_forwarding": False}


def test_restrictions_that_cannot_hold_are_refused_before_the_preview(
    page: Page, console: Service, signed_in: SignedIn, host: Server, key: Credential
) -> None:
    signed_in(page, "olga").goto(f"/hosts/{host.id}/keys/{key.id}")
    page.get_by_text("Change what it may do").click()
    page.get_by_label("From where").fill("!10.0.0.0/8")
    page.get_by_role("button", name="See what it changes").click()
    expect(page.get_by_label("From where")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("From where")).to_have_value("!10.0.0.0/8")
    assert held(console, key) == {}


def test_the_second_of_two_tabs_sees_restrictions_that_the_first_set(
    page: Page, console: Service, signed_in: SignedIn, host: Server, key: Credential
) -> None:
    signed_in(page, "olga").goto(f"/hosts/{host.id}/keys/{key.id}")
    page.get_by_text("Change what it may do").click()
    page.get_by_label("Only this command").fill("/bin/backup")
    page.get_by_role("button", name="See what it changes").click()
    other = page.context.new_page()
    other.goto(f"/hosts/{host.id}/keys/{key.id}")
    other.get_by_text("Change what it may do").click()
    other.get_by_label("From where").fill("10.0.0.0/8")
    other.get_by_role("button", name="See what it changes").click()
    other.get_by_role("button", name="Restrict it like that").click()
    expect(other.locator("#messages")).to_contain_text("sessions that are open go on")
    page.get_by_role("button", name="Restrict it like that").click()
    expect(page.get_by_role("alert")).to_contain_text("changed since")
    assert held(console, key) == {"sources": ["10.0.0.0/8"]}


def test_a_key_on_an_account_is_removed_once_that_was_confirmed(
    page: Page, console: Service, signed_in: SignedIn, host: Server, key: Credential
) -> None:
    signed_in(page, "olga").goto(f"/hosts/{host.id}/keys/{key.id}")
    page.get_by_role("button", name="Remove this key from shop-1").click()
    expect(page.get_by_role("heading", name="Remove pipeline from shop-1?")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("Who loses")
    page.reload()
    expect(page.get_by_role("heading", name="pipeline", level=1)).to_be_visible()
    page.get_by_role("button", name="Remove this key from shop-1").click()
    page.get_by_role("link", name="Back", exact=True).click()
    expect(page.get_by_role("heading", name="pipeline", level=1)).to_be_visible()
    page.get_by_role("button", name="Remove this key from shop-1").click()
    page.get_by_role("button", name="Remove this key from shop-1").click()
    expect(page.locator("#messages")).to_contain_text("taken away")
    assert not credentials.find(console.instance, actors.system_actor(1), host.id).items


def test_a_member_sees_their_own_tokens_and_revokes_one(page: Page, console: Service, signed_in: SignedIn) -> None:
    keyrack = actors.system_actor(1)
    mallory = next(one for one in users.find(console.instance, keyrack) if one.name == "mallory")
    actor = actors.of_user(mallory, address="127.0.0.1", channel="console")
    api_tokens.make(console.instance, actor, name="to be gone", scopes=["iam:self"])
    signed_in(page, "mallory").goto("/settings")
    table = page.get_by_role("table", name="Tokens")
    expect(table.get_by_role("row", name="alice")).to_have_count(0)
    table.get_by_role("row", name="to be gone").get_by_role("button").click()
    expect(page.get_by_role("heading", name="Revoke the token to be gone of mallory?")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("It was never used.")
    page.get_by_role("button", name="Revoke this token").click()
    expect(page.locator("#messages")).to_contain_text("no longer opens anything")
    expect(page.get_by_role("table", name="Tokens").get_by_role("row", name="to be gone")).to_have_count(0)


def test_a_form_that_is_too_long_is_refused_on_a_page_with_the_usual_frame(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/keys?add=1")
    page.get_by_label("Title").fill("laptop")
    page.evaluate("() => { document.querySelector('#field-public_key').value = 'x'.repeat(3000000) }")
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_role("heading", name="Too much at once")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text("Nothing was changed.")
    expect(page.get_by_role("navigation", name="Console", exact=True).get_by_role("link", name="Hosts")).to_be_visible()


def test_an_error_in_a_grant_is_announced_at_its_field(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/access/grant")
    page.get_by_label("Their name").fill("nobody of that name")
    page.get_by_label("Host or tag").fill("web-1")
    page.get_by_label("Account").fill("deploy")
    page.get_by_role("button", name="See what it does").click()
    field = page.get_by_label("Their name")
    expect(field).to_have_attribute("aria-invalid", "true")
    expect(field).to_be_focused()
    expect(field).to_have_accessible_description(re.compile("no such user"))


def test_a_revoked_key_shows_who_revoked_it_and_why_and_can_be_lifted(
    page: Page, console: Service, signed_in: SignedIn, key: Credential
) -> None:
    keyrack = actors.system_actor(1)
    revocation.revoke_everywhere(console.instance, keyrack, key.fingerprint, reason="a stick was lost")
    signed_in(page, "olga").goto(f"/revoked/{key.fingerprint}")
    expect(page.get_by_role("main")).to_contain_text("keyrack revoked it everywhere")
    expect(page.get_by_role("main")).to_contain_text("a stick was lost")
    page.get_by_role("button", name="Lift the revocation").click()
    expect(page.get_by_role("main")).to_contain_text("That alone opens nothing")
    page.get_by_role("button", name="Let it be registered again").click()
    expect(page.locator("#messages")).to_contain_text("may be registered again")
    assert revocation.noted(console.instance, keyrack, key.fingerprint) is None
    answer = page.goto("/revoked/SHA256:" + "A" * 43)
    assert answer is not None
    assert answer.status == 404, "it says of a key that it is revoked, which nobody revoked"


def test_receipts_of_an_event_say_what_it_was_and_print_with_the_time(
    page: Page, console: Service, signed_in: SignedIn, host: Server, key: Credential
) -> None:
    newest = events.find(
        console.instance, actors.system_actor(1), EventFilter(server_id=host.id, search="pipeline")
    ).items[0]
    signed_in(page, "olga").goto(f"/activity/{newest.id}")
    expect(page.get_by_role("main")).to_contain_text(newest.summary)
    expect(page.locator("main .paper")).to_be_hidden()
    page.emulate_media(media="print")
    expect(page.locator("main .paper")).to_contain_text("as olga saw it on")
    said = page.locator("main time").first.evaluate("(one) => getComputedStyle(one, '::after').content")
    assert newest.at.strftime("%Y") in said
    expect(page.get_by_role("navigation")).to_have_count(0)


def test_the_console_works_without_scripts(chromium: Browser, console: Service) -> None:
    with chromium.new_context(base_url=console.url, java_script_enabled=False) as context:
        page = context.new_page()
        page.goto("/login")
        page.get_by_label("User name").fill("alice")
        page.get_by_label("Password").fill("alice's password")
        page.get_by_role("button", name="Sign in").click()
        page.goto("/keys?add=1")
        page.get_by_label("Public key").fill(fresh_line("alice@plain"))
        page.get_by_label("Title").fill("without scripts")
        page.get_by_label("Ends").select_option("a day and time")
        page.get_by_label("Day and time").fill(f"{console.instance.now() + timedelta(days=3):%Y-%m-%dT%H:%M}")
        page.get_by_role("button", name="Add key").click()
        expect(page.locator("#messages")).to_contain_text("without scripts is registered")
        expect(page.get_by_role("button", name=re.compile("^Copy"))).to_have_count(0)
        page.get_by_role("button", name="Remove this key").click()
        page.get_by_role("button", name="Remove this key").click()
        expect(page.locator("#messages")).to_contain_text("is removed")


def test_a_screen_reader_announces_what_was_done(page: Page, signed_in: SignedIn) -> None:
    """A live region speaks of what comes into it after the page has loaded."""
    page.add_init_script(
        """addEventListener("DOMContentLoaded", () => {
            const place = document.getElementById("messages");
            window.announced = [];
            const note = (one) => window.announced.push(...[...one.addedNodes].map((node) => node.textContent));
            new MutationObserver((all) => all.forEach(note)).observe(place, { childList: true });
        })"""
    )
    signed_in(page, "olga").goto("/people")
    page.get_by_label("New group").fill("listeners")
    page.get_by_role("button", name="Add group").click()
    words = "The group listeners is added."
    wait_until(lambda: words in page.evaluate("window.announced || []"), "the announcement of what was done")


def test_a_grants_restrictions_are_shown_before_they_change(
    page: Page, console: Service, signed_in: SignedIn, host: Server
) -> None:
    keyrack = actors.system_actor(1)
    alice = next(one for one in users.find(console.instance, keyrack) if one.name == "alice")
    user_keys.add(console.instance, keyrack, title="of hers", public_key=fresh_line(), user_id=alice.id)
    grant = grants.give(console.instance, keyrack, user_id=alice.id, server_id=host.id, system_user="www")
    signed_in(page, "olga").goto("/grants")
    page.get_by_role("link", name=f"Change grant {grant.id}", exact=True).click()
    page.get_by_text("Change what it may do").click()
    page.get_by_label("From where").fill("10.0.0.0/8")
    page.get_by_label("Why").fill("from the office alone")
    page.get_by_role("button", name="See what it changes").click()
    table = page.get_by_role("table", name="What it may do")
    expect(table.get_by_role("row", name="From where")).to_contain_text("10.0.0.0/8")
    expect(table.get_by_role("row", name="Why")).to_contain_text("from the office alone")
    expect(page.get_by_role("main")).to_contain_text("alice as www on shop-1")
    assert not grants.get(console.instance, keyrack, grant.id).restrictions
    # Meanwhile somebody else says otherwise: nothing is overwritten.
    changing_grants.change(console.instance, keyrack, grant.id, restrictions={"command": "/bin/backup"})
    page.get_by_role("button", name="Restrict it like that").click()
    expect(page.get_by_role("alert")).to_contain_text("changed since")
    expect(page.locator("dl.facts")).to_contain_text("/bin/backup")
    expect(page.get_by_label("From where")).to_have_value("10.0.0.0/8")
    page.get_by_role("button", name="See what it changes").click()
    page.get_by_role("button", name="Restrict it like that").click()
    expect(page.locator("#messages")).to_contain_text("The grant is changed")
    now = grants.get(console.instance, keyrack, grant.id)
    assert (dict(now.restrictions), now.reason) == ({"sources": ["10.0.0.0/8"]}, "from the office alone")
    row = page.get_by_role("table", name="Grants").get_by_role("row", name="shop-1").last
    expect(row.get_by_text("restricted")).to_have_attribute("title", "From where: 10.0.0.0/8")


def test_a_link_to_a_page_that_is_no_more_leads_to_the_first(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/hosts?after=garbage")
    page.get_by_role("link", name="To its first page").click()
    expect(page.get_by_role("heading", name="Hosts", level=1)).to_be_visible()


def test_a_persons_list_of_keys_shows_which_are_frozen(
    page: Page, console: Service, signed_in: SignedIn, host: Server
) -> None:
    keyrack = actors.system_actor(1)
    bob = next(one for one in users.find(console.instance, keyrack) if one.name == "bob")
    user_keys.add(console.instance, keyrack, title="in a taxi", public_key=fresh_line(), user_id=bob.id)
    grants.give(console.instance, keyrack, user_id=bob.id, server_id=host.id, system_user="www")
    freezes.freeze(console.instance, keyrack, user="bob", reason="lost")
    signed_in(page, "bob").goto("/keys")
    expect(page.get_by_role("table", name="My keys").get_by_role("row", name="in a taxi")).to_contain_text("frozen")
