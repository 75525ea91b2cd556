"""What a page leaves out, it says: beyond the bounds of the overview and of the search; must not go by order."""

from __future__ import annotations

import re
import secrets
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import update

from keyrack.core.hosts import servers, system_users
from keyrack.core.keys import credentials, grants, user_keys
from keyrack.core.people import actors, groups, users
from keyrack.model import Role
from keyrack.store import tables
from keyrack.store.audit import events
from keyrack.store.overview import MAX_ALARMS, MAX_BEHIND, NEWEST
from keyrack.store.sealing import sealed
from keyrack.web.console.pages_access import MAX, MAX_LINES
from keyrack.web.console.pages_keys import MAX_WAYS
from keyrack.web.console.pages_people import PER_PAGE
from tests.console.conftest import SignedIn
from tests.console.enrolled_host import person as user_called
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

KEYRACK = actors.system_actor(1)


@pytest.fixture(scope="module", autouse=True)
def crowd(console: Service) -> None:
    """Two hosts more than the overview reads that were not seen for an hour, and obey nothing yet."""
    at = console.instance.now() - timedelta(hours=1)
    machine = {"workspace_id": 1, "mode": "observe", "revision": 1, "applied_revision": 0, "facts": {}, "sshd": {}}
    machine |= {"rows_sum": bytes(32), "lineage": "", "address": "192.0.2.1", "created_at": at, "updated_at": at}
    machine |= {"enrolled_at": at, "seen_at": at}
    rows = [
        {**machine, "host": secrets.token_hex(8), "name": f"crowd-{n}", "agent_secret_hash": secrets.token_bytes(32)}
        for n in range(MAX_BEHIND + 2)
    ]
    console.instance.database.write(lambda connection: sealed.insert_rows(connection, tables.servers, rows))


def test_the_overview_counts_hosts_beyond_those_that_it_reads(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/")
    lines = page.get_by_role("region", name="Needs somebody").get_by_role("listitem")
    expect(lines.filter(has_text="silent")).to_contain_text("1,002 hosts are silent")
    expect(lines.filter(has_text="silent")).to_contain_text("and 997 more")
    expect(lines.filter(has_text="have not said yet")).to_contain_text(re.compile(r"1,00\d hosts have not said yet"))
    expect(page.get_by_role("figure").filter(has_text="Hosts behind by, of 1,000 hosts")).to_have_count(1)


def test_the_overview_shows_how_many_events_its_days_have(page: Page, console: Service, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/")
    expect(page.get_by_role("figure").filter(has_text="Changes a day")).not_to_contain_text("newest")
    common = {"at": console.instance.now(), "action": "servers:write", "outcome": "done", "reason": "", "level": "info"}
    common |= {"target_kind": "server", "target_id": 1, "server_id": None, "summary": "Changed it", "details": {}}
    console.instance.database.write(lambda connection: events.add_many(connection, KEYRACK, common, [{}] * NEWEST))
    page.reload()
    expect(page.get_by_role("figure").filter(has_text="Changes a day")).to_contain_text(
        "Changes a day, of the newest 20,000 events"
    )


def test_a_page_says_that_not_all_hosts_and_alarms_were_read(page: Page, console: Service, signed_in: SignedIn) -> None:
    lines = signed_in(page, "olga").get_by_role("main").get_by_role("listitem")
    page.goto("/alarms")
    expect(lines.filter(has_text="Not all")).to_have_count(0)
    values = {"facts": {"problems": ["the disk is full"]}}
    of_crowd = tables.servers.c.name.like("crowd-%")
    console.instance.database.write(
        lambda connection: connection.execute(update(tables.servers).where(of_crowd).values(values))
    )
    common = {"at": console.instance.now(), "action": "servers:write", "outcome": "alarm", "reason": "odd"}
    common |= {"level": "alarm", "target_kind": "server", "target_id": 1, "server_id": None, "details": {}}
    raised = [{"summary": f"Alarm: odd {number}"} for number in range(MAX_ALARMS + 1)]
    console.instance.database.write(lambda connection: events.add_many(connection, KEYRACK, common, raised))
    for path in ("/", "/alarms"):
        page.goto(path)
        alarms, hosts = lines.filter(has_text="Not all alarms are here"), lines.filter(has_text="Not all hosts")
        expect(alarms).to_contain_text("More than 1,000 alarms were raised within a week")
        expect(hosts).to_contain_text("More than 1,000 hosts may have something wrong")
    hosts.get_by_role("link").click()
    expect(page).to_have_url(re.compile(r"/hosts\?state=problems$"))


def test_many_tags_of_a_host_fit_the_page_with_a_count_of_the_rest(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    tags = ("cache", "customer-facing", "frankfurt", "reviewed-each-quarter")
    for name in ("a-host-tagged-by-many", "a-host-with-a-name-as-long-as-few-have-in-a-list"):
        servers.create(console.instance, KEYRACK, name=name, address="192.0.2.200", tags=tags)
    signed_in(page, "olga").goto("/hosts?q=a-host")
    more = page.locator("td .tags > .muted").first
    for width in (1280, 1366, 1500, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        right = "element => element.getBoundingClientRect().right"
        page.evaluate("""() => { for (const mark of document.querySelectorAll("td > .mark")) {
            mark.className = "mark mark-attention"
            mark.textContent = "▲ not up to date yet"
        } }""")
        page.evaluate("""() => { for (const at of document.querySelectorAll("td[data-word=seen]")) {
            at.textContent = "59 minutes ago"
        } }""")
        assert more.evaluate(right) <= page.locator(".table").first.evaluate(right), width


def test_the_search_links_to_everything_that_it_found(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/search?q=crowd")
    more = page.get_by_role("main").get_by_role("link", name="More hosts…")
    more.click()
    expect(page).to_have_url(re.compile(r"/hosts\?q=crowd$"))
    page.keyboard.press("/")
    page.keyboard.type("crowd")
    expect(page.get_by_role("option")).to_have_count(6)
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("option", name="More hosts…")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/search\?q=crowd$"))
    page.goto("/search?q=web-1")
    expect(page.get_by_role("main").get_by_role("link", name="More hosts…")).to_have_count(0)


def test_a_name_is_found_with_blanks_around_it_and_a_wrong_one_is_not_said_to_let_nobody_in(
    page: Page, signed_in: SignedIn
) -> None:
    signed_in(page, "olga").goto("/hosts?q=%20web-1%20")
    expect(page.get_by_role("main").get_by_role("link", name="web-1", exact=True)).to_be_visible()
    page.goto("/people?q=alice%20")
    expect(page.get_by_role("main").get_by_role("link", name="alice", exact=True)).to_be_visible()
    page.goto("/access?q=web-1%20")
    expect(page.get_by_role("main")).not_to_contain_text("No host is like that")
    for wrong in ("q=wbe-1", "tag=wbe"):
        page.goto(f"/access?{wrong}")
        expect(page.get_by_role("main")).to_contain_text("No host is like that")
        expect(page.get_by_role("main")).not_to_contain_text("Nobody can log in")
    page.goto("/repositories?q=nothing-like-it")
    expect(page.get_by_role("main")).not_to_contain_text("No repository yet")


def test_more_groups_than_a_page_holds_are_reached(page: Page, console: Service, signed_in: SignedIn) -> None:
    for number in range(PER_PAGE + 1):
        groups.ensure(console.instance, KEYRACK, name=f"group-{number:03}", user_ids=())
    signed_in(page, "olga").goto("/people?q=alice")
    last = page.get_by_role("table", name="Groups").get_by_role("link", name=f"group-{PER_PAGE:03}")
    expect(last).to_have_count(0)
    page.get_by_role("link", name="More groups").click()
    expect(last).to_be_visible()
    page.get_by_role("link", name="First groups").click()
    expect(last).to_have_count(0)


def test_the_longest_names_fit_within_the_window(page: Page, console: Service, signed_in: SignedIn) -> None:
    person, group = "x" * 200, "z" * 200
    users.create_user(console.instance, KEYRACK, name=person, role=Role.MEMBER)
    groups.ensure(console.instance, KEYRACK, name=group, user_ids=())
    signed_in(page, "olga")
    for width in (1280, 375):
        page.set_viewport_size({"width": width, "height": 800})
        for path in (f"/people/{person}", f"/offboard/{person}", f"/groups/{group}", f"/search?q={person}"):
            page.goto(path)
            beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert beyond == 0, (width, path)


@pytest.fixture(scope="module")
def well_travelled(console: Service, crowd: None) -> list[str]:
    """The fingerprints of six keys of alice's, each of which opens more hosts than its page looks at."""
    for number in range(MAX_WAYS + 1):
        host = servers.create(console.instance, KEYRACK, name=f"far-{number}", address="192.0.2.2", tags=("far",))
        system_users.create(console.instance, KEYRACK, host.id, username="deploy")
    alice = user_called(console, "alice")
    grants.give(console.instance, KEYRACK, user_id=alice.id, tag="far", system_user="deploy")
    titles = [f"key {number}" for number in range(MAX // MAX_WAYS + 1)]
    made = [
        user_keys.add(console.instance, KEYRACK, title=title, public_key=fresh_line(), user_id=alice.id)
        for title in titles
    ]
    return [one.fingerprint or "" for one in made]


def test_a_key_says_how_many_hosts_it_opens_however_many_keys_its_owner_has(
    page: Page, well_travelled: list[str], signed_in: SignedIn
) -> None:
    least = f"at least {MAX_WAYS} hosts"
    signed_in(page, "alice").goto("/keys")
    rows = page.get_by_role("table", name="My keys").get_by_role("row").filter(has_text="key ")
    expect(rows).to_have_text([re.compile(f"{least}")] * len(well_travelled))
    page.goto(f"/keys/{well_travelled[0]}")
    expect(page.get_by_text(f"to {least}")).to_be_visible()
    page.get_by_role("button", name=f"Remove this key from {least}").click()
    expect(page.get_by_text(f"It opens {least} for you: far-0, ")).to_be_visible()
    expect(page.get_by_role("button", name=f"Remove this key from {least}")).to_be_visible()


def test_a_persons_own_access_is_listed_to_its_end(page: Page, well_travelled: list[str], signed_in: SignedIn) -> None:
    signed_in(page, "alice").goto("/")
    expect(page.get_by_text("You can log in to at least ")).to_be_visible()
    page.goto("/access")
    names: set[str] = set()
    while True:
        names |= set(page.get_by_role("table", name="My access").locator("td.name").all_inner_texts())
        if page.get_by_role("link", name="Next", exact=True).count() == 0:
            break
        page.get_by_role("link", name="Next", exact=True).click()
    assert {f"far-{number}" for number in range(MAX_WAYS + 1)} <= names


def test_a_key_that_opens_repositories_alone_says_when_it_was_used(
    page: Page, console: Service, well_travelled: list[str], signed_in: SignedIn
) -> None:
    at = console.instance.now() - timedelta(hours=5)
    mine = user_keys.add(
        console.instance, KEYRACK, title="for Git", public_key=fresh_line(), user_id=user_called(console, "bob").id
    )
    use = {
        "fingerprint": mine.fingerprint,
        "server_id": 0,
        "username": "git",
        "last_used_at": at,
        "address": "192.0.2.9",
    }
    console.instance.database.write(lambda connection: connection.execute(tables.key_uses.insert(), [use]))
    signed_in(page, "bob").goto("/keys")
    expect(page.get_by_role("row").filter(has_text="for Git")).to_contain_text("5 hours ago")
    page.goto(f"/keys/{mine.fingerprint}")
    expect(page.locator("dl.facts")).to_contain_text("5 hours ago")


def test_an_account_with_very_many_keys_does_not_fill_the_list(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    host = servers.create(console.instance, KEYRACK, name="crowded", address="192.0.2.3")
    system_users.create(console.instance, KEYRACK, host.id, username="www")
    for number in range(MAX_LINES + 3):
        credentials.add(
            console.instance, KEYRACK, host.id, label=f"key {number}", username="www", public_key=fresh_line()
        )
    signed_in(page, "olga").goto("/access?view=list&q=crowded")
    rows = page.get_by_role("table", name="Access").get_by_role("row").filter(has_text="(no user)")
    expect(rows).to_have_count(MAX_LINES + 1)
    rows.get_by_role("link", name="3 more ways in").click()
    expect(page.get_by_role("main").locator("ul.log > li")).to_have_count(MAX_LINES + 3)
