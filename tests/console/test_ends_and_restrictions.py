"""A day and time as an end, all restrictions of a key, the way on from a wrong address, folded rows read aloud."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from keyrack.core.audit import alarms
from keyrack.core.keys import grants, user_keys
from keyrack.core.people import actors, users
from keyrack.ssh.options import Restrictions
from keyrack.web.console import restrictions
from tests.console.conftest import SignedIn
from tests.core.keys_for_tests import fresh_line
from tests.services import Service


def test_the_form_has_every_restriction_that_the_core_takes() -> None:
    assert set(restrictions.FIELDS) == set(Restrictions._fields)


def _grant_form(page: Page) -> None:
    page.goto("/access/grant")
    page.get_by_label("Their name").fill("alice")
    page.get_by_label("Host or tag").fill("web-1")
    page.get_by_label("Account").fill("deploy")


def test_a_grant_ends_on_a_day_in_the_viewers_zone_and_is_restricted(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    signed_in(page, "olga")
    _grant_form(page)
    zone = page.evaluate("Intl.DateTimeFormat().resolvedOptions().timeZone")
    expect(page.get_by_label("Day and time")).to_be_hidden()
    page.get_by_label("Ends", exact=True).select_option("a day and time")
    expect(page.locator("#hint-until")).to_have_text(f"In the time of {zone}.")
    page.get_by_label("Day and time").fill("2020-01-01T10:00")
    page.get_by_role("button", name="See what it does").click()
    expect(page.locator("#wrong-ends")).to_contain_text("past already")
    expect(page.get_by_label("Day and time")).to_have_value("2020-01-01T10:00")
    wanted = (datetime.now(UTC) + timedelta(days=40)).replace(second=0, microsecond=0, tzinfo=None)
    page.get_by_label("Day and time").fill(wanted.isoformat(timespec="minutes"))
    page.get_by_text("What it may do, and from where").click()
    page.get_by_label("Nothing but what is allowed below").check()
    page.get_by_label("Terminal").select_option("allowed")
    page.get_by_label("Forwarding only to").fill("db.internal:5432")
    page.get_by_role("button", name="See what it does").click()
    page.get_by_role("button", name="Grant access").click()
    expect(page.locator("#messages")).to_contain_text("alice may log in as deploy on web-1")
    shown = page.request.get("/grants", headers={"Accept": "text/html"}).text()
    at = page.evaluate("text => new Date(text).toISOString().slice(0, 16)", wanted.isoformat(timespec="minutes"))
    assert at in shown
    held = grants.page(console.instance, actors.system_actor(1)).items[-1].restrictions
    given = {"restrict": True, "permit_pty": True, "port_forwarding": True, "permitopen": ["db.internal:5432"]}
    assert dict(held) == given, "what is named below is allowed"


@pytest.mark.parametrize(
    ("zone", "at", "words"),
    [
        ("Europe/Berlin", "2030-10-27T02:30", "twice that day"),
        ("Europe/Berlin", "2030-03-31T02:30", "never that day"),
        ("Nowhere/City", "2030-03-31T12:30", "in a zone such as"),
        ("../../etc/passwd", "2030-03-31T12:30", "in a zone such as"),
        ("Europe/Berlin", "tomorrow", "in a zone such as"),
        ("Europe/Berlin", "2030-03-31T12:30+02:00", "the zone is named beside it"),
        ("Europe/Berlin", "9999-12-31T23:59", "more than ten years ahead"),
    ],
)
def test_a_time_that_names_no_instant_is_refused(
    page: Page, signed_in: SignedIn, zone: str, at: str, words: str
) -> None:
    signed_in(page, "olga")
    _grant_form(page)
    form: dict[str, str | float | bool] = {
        **{"who": "user", "name": "alice", "where": "server", "place": "web-1", "system_user": "deploy"},
        **{"ends": "date", "until": at, "zone": zone},
    }
    form["csrf"] = page.locator('main input[name="csrf"]').first.input_value()
    answer = page.request.post("/access/grant", form=form, headers={"Accept": "text/html"})
    assert (answer.status, words in answer.text()) == (422, True), answer.text()


def test_a_wrong_address_leads_on_where_one_is_signed_in(page: Page, signed_in: SignedIn) -> None:
    answer = page.goto("/nothing/like/that")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("navigation")).to_have_count(0)
    signed_in(page, "olga")
    answer = page.goto("/nothing/like/that")
    assert answer is not None
    assert answer.status == 404
    expect(page.get_by_role("heading", name="Not there")).to_be_visible()
    expect(page.get_by_role("navigation", name="Console", exact=True).get_by_role("link", name="Hosts")).to_be_visible()


def test_a_page_that_one_may_not_see_still_has_the_navigation(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "alice")
    answer = page.goto("/webhooks")
    assert answer is not None
    assert answer.status in (403, 404)
    expect(page.get_by_role("navigation", name="Console", exact=True)).to_be_visible()


@pytest.mark.parametrize("address", ["/hosts", "/people"])
def test_a_screen_reader_reads_folded_rows_as_rows(page: Page, signed_in: SignedIn, address: str) -> None:
    signed_in(page, "olga")
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(address)
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles = [one["role"]["value"] for one in nodes if not one.get("ignored")]
    assert {"table", "row", "columnheader"} <= set(roles), sorted(set(roles))
    assert {"cell", "gridcell", "rowheader"} & set(roles), sorted(set(roles))
    assert not {"LayoutTable", "LayoutTableRow", "LayoutTableCell"} & set(roles)
    rows = page.locator("table.stacks tbody tr").count()
    assert roles.count("row") >= rows + 1


def test_a_page_says_that_there_are_many_alarms(page: Page, console: Service, signed_in: SignedIn) -> None:
    for number in range(7):
        alarms.raise_once(console.instance, 1, f"tried-{number}", f"somebody tried {number}")
    signed_in(page, "olga").goto("/")
    main = page.get_by_role("main")
    expect(main).to_contain_text("7 alarms in all")
    expect(main).to_contain_text("somebody tried 6")
    expect(main).not_to_contain_text("Alarm:")
    for number in range(7, 30):
        alarms.raise_once(console.instance, 1, f"tried-{number}", f"somebody tried {number}")
    page.reload()
    page.get_by_role("listitem").filter(has_text="more than 20 alarms in all").get_by_role("link", name="Look").click()
    expect(page.get_by_role("main")).to_contain_text("somebody tried 0")


@pytest.mark.parametrize("width", [1280, 1024, 390])
def test_titles_of_any_length_hide_no_column(page: Page, console: Service, signed_in: SignedIn, width: int) -> None:
    keyrack = actors.system_actor(1)
    olga = next(one for one in users.find(console.instance, keyrack) if one.name == "olga")
    grants.give(console.instance, keyrack, user_id=olga.id, server_id=1, system_user="deploy")
    end = console.instance.now() + timedelta(days=40)
    for title in ("a" * 100, "\u05e9\u05dc\u05d5\u05dd " * 20):
        user_keys.add(console.instance, keyrack, title=title, public_key=fresh_line(), expires_at=end, user_id=olga.id)
    page.set_viewport_size({"width": width, "height": 844})
    signed_in(page, "olga").goto("/keys")
    table = page.get_by_role("region", name="My keys")
    assert table.evaluate("(one) => one.scrollWidth - one.clientWidth") <= 1
