"""What a page leaves out, it says: beyond the bounds of the overview and of the search; must not go by order."""

from __future__ import annotations

import re
import secrets
from datetime import timedelta

import pytest
from playwright.sync_api import Page, expect

from keyrack.core.people import actors
from keyrack.store import tables
from keyrack.store.audit import events
from keyrack.store.overview import MOST_BEHIND, NEWEST
from keyrack.store.sealing import sealed
from tests.console.conftest import SignedIn
from tests.services import Service

KEYRACK = actors.system_actor(1)


@pytest.fixture(scope="module", autouse=True)
def crowd(console: Service) -> None:
    """Two hosts more than the overview looks at that were not heard of for an hour, and obey nothing yet."""
    at = console.instance.now() - timedelta(hours=1)
    machine = {"workspace_id": 1, "mode": "observe", "revision": 1, "applied_revision": 0, "facts": {}, "sshd": {}}
    machine |= {"rows_sum": bytes(32), "lineage": "", "address": "192.0.2.1", "created_at": at, "updated_at": at}
    machine |= {"enrolled_at": at, "seen_at": at}
    rows = [
        {**machine, "host": secrets.token_hex(8), "name": f"crowd-{n}", "agent_secret_hash": secrets.token_bytes(32)}
        for n in range(MOST_BEHIND + 2)
    ]
    console.instance.database.write(lambda connection: sealed.insert_rows(connection, tables.servers, rows))


def test_the_overview_counts_hosts_beyond_those_that_it_looks_at(page: Page, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/")
    lines = page.get_by_role("region", name="Needs somebody").get_by_role("listitem")
    expect(lines.filter(has_text="silent")).to_contain_text("1,002 hosts are silent")
    expect(lines.filter(has_text="silent")).to_contain_text("and 997 more")
    expect(lines.filter(has_text="have not said yet")).to_contain_text(re.compile(r"1,00\d hosts have not said yet"))
    expect(page.get_by_role("figure").filter(has_text="Hosts behind by, of 1,000 hosts")).to_have_count(1)


def test_the_overview_says_of_how_many_events_its_days_are(page: Page, console: Service, signed_in: SignedIn) -> None:
    signed_in(page, "olga").goto("/")
    expect(page.get_by_role("figure").filter(has_text="Changes a day")).not_to_contain_text("newest")
    common = {"at": console.instance.now(), "action": "servers:write", "outcome": "done", "reason": "", "level": "info"}
    common |= {"target_kind": "server", "target_id": 1, "server_id": None, "summary": "Changed it", "details": {}}
    console.instance.database.write(lambda connection: events.add_many(connection, KEYRACK, common, [{}] * NEWEST))
    page.reload()
    expect(page.get_by_role("figure").filter(has_text="Changes a day")).to_contain_text(
        "Changes a day, of the newest 20,000 events"
    )


def test_the_search_leads_to_all_that_it_found(page: Page, signed_in: SignedIn) -> None:
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
