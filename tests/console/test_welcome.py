"""The first visit leads in three steps to the line that logs in."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from keyrack.core.hosts import enrolment, reports, servers
from keyrack.core.keys import grants
from keyrack.core.people import actors, users
from tests.core.keys_for_tests import fresh_line
from tests.services import Service


def test_a_newcomer_gets_a_line_to_paste_in_three_steps(page: Page, console: Service) -> None:
    keyrack = actors.system_actor(1)
    alice = next(user for user in users.find(console.instance, keyrack) if user.name == "alice")
    grants.give(console.instance, keyrack, user_id=alice.id, server_id=1, system_user="deploy")

    page.goto("/login")
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password").fill("alice's password")
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/welcome$"))
    page.get_by_label("Present password").fill("alice's password")
    page.get_by_label("New password", exact=True).fill("a password of my own")
    page.get_by_label("New password once more").fill("a password of my own")
    page.get_by_role("button", name="Change password").click()

    line = fresh_line("alice@laptop")
    page.get_by_label("Public key").fill(line.replace("ssh-ed25519", "ssh-ed25518"))
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_label("Public key")).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Public key").fill(line)
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_text("ssh deploy@192.0.2.10")).to_be_visible()
    expect(page.get_by_text("on its way to web-1")).to_be_visible()

    # The host says that it obeys, and the page says so by itself.
    token = servers.invite(console.instance, keyrack, 1)
    enrolment.enrol(console.instance, token, {"host": "web-1"}, address="192.0.2.10")
    server = servers.get(console.instance, keyrack, 1)
    reports.ingest(console.instance, server, {"revision": server.revision, "state": "applied"})
    expect(page.get_by_text("in force on web-1")).to_be_visible()

    # Who has been here comes to the overview.
    page.goto("/logout")
    page.get_by_role("button", name="Sign out").last.click()
    page.get_by_label("User name").fill("alice")
    page.get_by_label("Password").fill("a password of my own")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
