"""A person's keys and the hosts as they are met in the browser."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from keyrack.core.hosts import enrolment, reports, servers, system_users
from keyrack.core.keys import grants, requests, user_keys
from keyrack.core.people import actors, users, web_sessions
from tests.console.conftest import SignedIn
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

PRIVATE = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gt\n"


def test_a_key_is_added_judged_and_removed(page: Page, signed_in: SignedIn) -> None:
    line = f"{fresh_line()} olga@laptop"
    signed_in(page, "olga").goto("/keys")
    page.get_by_role("button", name="Add key").click()
    page.get_by_label("Public key").fill("ssh-ed25519 AAAA")
    expect(page.locator("#verdict .problem")).to_be_visible()
    page.get_by_label("Public key").fill(line)
    expect(page.locator("#verdict")).to_contain_text("256 bits")
    expect(page.get_by_label("Title")).to_have_value("olga@laptop")
    page.get_by_label("Ends").select_option("12 h")
    page.get_by_role("button", name="Add key").click()
    expect(page).to_have_url(re.compile("/keys/SHA256"))
    expect(page.locator("#messages")).to_contain_text("olga@laptop")
    expect(page.locator(".art")).to_contain_text("ED25519 256")
    page.goto("/keys")
    row = page.get_by_role("table", name="My keys").get_by_role("row", name="olga@laptop")
    expect(row.locator("time[data-exact]")).to_be_visible()
    row.get_by_role("link", name="olga@laptop").click()
    page.get_by_role("button", name="Remove this key").click()
    expect(page.get_by_role("heading", name="Remove your key olga@laptop?")).to_be_visible()
    page.get_by_role("button", name="Remove this key").click()
    expect(page.get_by_role("link", name="olga@laptop")).to_have_count(0)


def test_a_private_key_never_leaves_the_browser_nor_is_kept(page: Page, console: Service, signed_in: SignedIn) -> None:
    sent: list[str] = []
    signed_in(page, "olga").goto("/keys?add=1")
    page.on("request", lambda request: sent.append(request.post_data or ""))
    page.get_by_label("Public key").fill(PRIVATE)
    expect(page.locator("#verdict")).to_contain_text("private key")
    expect(page.get_by_label("Public key")).to_have_value("")
    assert not any("PRIVATE" in body for body in sent)


def test_an_invalid_key_keeps_what_was_typed(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/keys?add=1")
    page.get_by_label("Public key").fill("nothing of a key")
    page.get_by_label("Title").fill("laptop")
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_label("Title")).to_have_value("laptop")
    expect(page.locator("#verdict .problem")).to_be_visible()


def test_a_host_is_added_and_shows_its_line(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/hosts")
    page.get_by_role("button", name="Add host").click()
    page.get_by_label("Name").fill("fresh-1")
    page.get_by_role("button", name="Add host").click()
    expect(page.locator("pre")).to_contain_text("curl -fsSL")
    expect(page.get_by_text("Waiting for the host…")).to_be_visible()
    page.get_by_role("link", name="To the host's page").click()
    expect(page.get_by_role("heading", name="fresh-1")).to_be_visible()
    expect(page.locator(".head p")).to_have_text("fresh-1")
    page.get_by_role("button", name="Enforce").click()
    expect(page.get_by_text("Nobody: no key of Keyrack's opens this host")).to_be_visible()


def test_a_member_sees_neither_hosts_nor_others_keys(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "mallory").goto("/keys")
    expect(page.get_by_role("link", name="Hosts")).to_have_count(0)
    response = page.goto("/hosts")
    assert response is not None
    assert response.status == 403


def test_the_page_says_when_it_is_no_longer_live(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/hosts/1")
    expect(page.locator("[data-live-words]")).to_have_text("Live.")
    page.context.set_offline(True)
    expect(page.locator("[data-live-words]")).to_contain_text("No longer live")


def test_a_page_without_a_stream_polls_by_itself(page: Page, console: Service, signed_in: SignedIn) -> None:
    page.route("**/live?*", lambda route: route.fulfill(status=503))
    signed_in(page, "olga").goto("/requests")
    expect(page.locator("[data-live-words]")).to_have_text("Live.")
    mallory = next(one for one in users.find(console.instance, actors.system_actor(1)) if one.name == "mallory")
    requests.ask(
        console.instance,
        web_sessions.actor_of(mallory, address="127.0.0.1"),
        server="web-1",
        system_user="deploy",
        duration="1h",
        reason="to look after the shop",
    )
    expect(page.get_by_role("table", name="Waiting")).to_contain_text("to look after the shop", timeout=15_000)


def test_everything_can_be_reached_by_keyboard(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/")
    page.keyboard.press("Control+k")
    found = page.get_by_role("listbox", name="Found")
    expect(found.get_by_role("option", name="Hosts")).to_be_visible()
    page.keyboard.insert_text("web")
    host = found.get_by_role("option", name="web-1")
    expect(host).to_be_visible()
    expect(found.get_by_role("option", name="Webhooks")).to_be_visible()
    page.keyboard.press("ArrowUp")
    expect(host).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="web-1", level=1)).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.insert_text("grant a")
    expect(found.get_by_role("option")).to_have_text(["Grant access"])
    page.keyboard.press("Escape")
    expect(found).to_be_hidden()
    # Without a choice, Enter shows the page of what was found.
    page.keyboard.press("/")
    page.keyboard.insert_text("web-1")
    page.keyboard.press("Enter")
    page.get_by_role("main").get_by_role("link", name="web-1").click()
    expect(page.get_by_role("heading", name="web-1", level=1)).to_be_visible()


def test_a_members_overview_hides_no_host_in_a_box(page: Page, console: Service, signed_in: SignedIn) -> None:
    alice = next(one for one in users.find(console.instance, actors.system_actor(1)) if one.name == "alice")
    actor = web_sessions.actor_of(alice, address="127.0.0.1")
    user_keys.add(console.instance, actor, title="of the overview", public_key=fresh_line())
    grants.give(console.instance, actors.system_actor(1), user_id=alice.id, all_servers=True, system_user="deploy")
    signed_in(page, "alice").goto("/")
    ways = page.locator("main ul.log")
    expect(ways).to_be_visible()
    assert ways.evaluate("list => getComputedStyle(list).maxHeight") == "none"


def test_no_key_is_called_in_force_where_a_host_only_observes(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    instance, keyrack = console.instance, actors.system_actor(1)
    bob = next(one for one in users.find(instance, keyrack) if one.name == "bob")
    made = servers.create(instance, keyrack, name="looks-on", address="192.0.2.81", mode="observe")
    system_users.create(instance, keyrack, made.id, username="deploy")
    grants.give(instance, keyrack, user_id=bob.id, server_id=made.id, system_user="deploy")
    key = user_keys.add(instance, keyrack, title="early", public_key=fresh_line(), user_id=bob.id)
    enrolment.enrol(instance, servers.invite(instance, keyrack, made.id), {"host": "looks-on"}, address="192.0.2.81")

    def says(enforcement: str, **more: object) -> None:
        server = servers.get(instance, keyrack, made.id)
        report = {"revision": server.revision, "state": "applied", "facts": {"enforcement": enforcement}, **more}
        reports.ingest(instance, server, report)

    says("observe")
    signed_in(page, "bob").goto(f"/keys/{key.fingerprint}")
    delivery = page.locator("#delivery")
    expect(delivery).to_contain_text("It opens nothing yet on 1 host")
    expect(delivery).to_contain_text("which does not enforce: looks-on.")
    expect(delivery).to_contain_text("not enforced")
    expect(delivery).not_to_contain_text("in force")
    page.goto("/welcome?step=3")
    expect(page.get_by_role("main")).to_contain_text("not before looks-on enforces")

    olga = page.context.new_page()
    signed_in(olga, "olga").goto(f"/hosts/{made.id}")
    expect(olga.get_by_text("It has not said yet which keys it found.")).to_be_visible()
    says("enforce", keys_found=[])
    # The open page says so by itself.
    expect(olga.get_by_text("nothing opens this host that Keyrack did not put there")).to_be_visible()
    signed_in(page, "bob").goto(f"/keys/{key.fingerprint}")
    expect(delivery).to_contain_text("In force on 1 host")


def test_an_account_is_added_to_a_host_and_may_be_granted(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/hosts/1")
    page.get_by_text("Add an account").click()
    page.get_by_label("Account", exact=True).fill("no account of that shape")
    page.get_by_role("button", name="Add account").click()
    expect(page.get_by_label("Account", exact=True)).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Account", exact=True).fill("billing")
    page.get_by_role("button", name="Add account").click()
    expect(page.get_by_role("main")).to_contain_text("makes the account billing, unless it has one of that name")
    page.get_by_role("button", name="Add account").click()
    expect(page.locator("#messages")).to_contain_text("The account billing is made by the host")
    page.get_by_role("link", name="Put a key on an account").click()
    expect(page.get_by_label("Account").locator("option")).to_contain_text(["billing"])
