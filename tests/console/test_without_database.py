"""The database is taken away under open pages: each says so in words, loses nothing, and goes on once it is back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.console.conftest import SignedIn
from tests.core.keys_for_tests import fresh_line
from tests.postgres import Cluster
from tests.services import TEAM, Service, running, settings_for

AWAY = "The service cannot reach its database at the moment. Nothing was changed; try again."


@pytest.fixture(scope="module")
def console(durable_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on a PostgreSQL of its own, which is stopped and started."""
    folder = tmp_path_factory.mktemp("without-database") / "data"
    with running(settings_for(folder, durable_cluster.create_database())) as service:
        service.apply(TEAM)
        yield service
        if not durable_cluster.running:
            durable_cluster.start()


def test_a_form_keeps_its_text_and_can_be_sent_once_the_database_is_back(
    page: Page, durable_cluster: Cluster, signed_in: SignedIn
) -> None:
    line = f"{fresh_line()} alice@train"
    signed_in(page, "alice").goto("/keys?add=1")
    page.get_by_label("Public key").fill(line)
    page.get_by_label("Title").fill("a title of mine")
    page.get_by_label("Ends").select_option("12 h")
    durable_cluster.stop()
    page.get_by_role("main").get_by_role("button", name="Add key").click()
    expect(page.get_by_role("heading", name="Not reachable at the moment")).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text(AWAY)
    expect(page.get_by_text("What is in force on hosts goes on as it is.")).to_be_visible()
    expect(page.get_by_text("What you wrote is kept in this tab")).to_be_visible()
    # Also who goes back to the form too soon loses nothing.
    page.get_by_role("link", name="Back to the form").click()
    expect(page.get_by_role("main")).to_contain_text(AWAY)
    durable_cluster.start()
    page.get_by_role("link", name="Try again").click()
    expect(page.locator("#messages")).to_contain_text("What you wrote is back in its form")
    expect(page.get_by_label("Public key")).to_have_value(line)
    expect(page.get_by_label("Title")).to_have_value("a title of mine")
    expect(page.get_by_label("Ends")).to_have_value("12h")
    page.get_by_role("main").get_by_role("button", name="Add key").click()
    expect(page.locator("#messages")).to_contain_text("a title of mine is registered")


def test_an_open_page_is_live_again_once_the_database_is_back(
    page: Page, durable_cluster: Cluster, signed_in: SignedIn
) -> None:
    signed_in(page, "olga").goto("/hosts/1")
    words = page.locator("[data-live-words]")
    expect(words).to_have_text("Live.")
    durable_cluster.stop()
    expect(words).to_contain_text("Keyrack does not reach its database. What stands here may be old.")
    durable_cluster.start()
    expect(words).to_have_text("Live.")
