"""From the browser to a real login and its end: real Chromium, service, agent, sshd and ssh."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from keyrack.core.hosts import servers, system_users
from keyrack.core.people import users
from tests.console.conftest import SignedIn
from tests.login.private_sshd import USERNAME, Key, agent_host, strict_folder
from tests.services import Service


def test_a_key_opens_a_login_and_remove_ends_it(
    page: Page, console: Service, signed_in: SignedIn, tmp_path: Path
) -> None:
    keyrack = users.system_actor(1)
    if USERNAME not in ("root", "deploy"):
        system_users.create(console.instance, keyrack, 1, username=USERNAME)
    token = servers.invite(console.instance, keyrack, 1)
    key = Key.make(tmp_path / "key")
    with strict_folder() as folder, agent_host(folder, console.url, token) as (_, client):
        # The owner lets her in, after a look at what that does.
        signed_in(page, "olga").goto("/access/grant")
        page.get_by_label("Their name").fill("alice")
        page.get_by_label("Host or tag").fill("web-1")
        page.get_by_label("Account").fill(USERNAME)
        page.get_by_role("button", name="See what it does").click()
        page.get_by_role("button", name="Grant access").click()
        expect(page.locator("#messages")).to_contain_text(f"alice can log in as {USERNAME} on web-1")
        assert not client.lets_in(key)

        page.context.clear_cookies()
        signed_in(page, "alice").goto("/keys")
        page.get_by_role("button", name="Add key").click()
        page.get_by_label("Public key").fill(key.public)
        page.get_by_label("Title").fill("laptop")
        page.get_by_role("button", name="Add key").click()
        expect(page.locator("#delivery")).to_contain_text("In force on 1 host")
        assert client.lets_in(key)

        page.get_by_role("button", name=re.compile("^Remove this key")).click()
        page.get_by_role("heading", name=re.compile("^Remove your key")).wait_for()
        page.get_by_role("button", name=re.compile("^Remove this key")).click()
        expect(page.locator("#messages")).to_contain_text("is removed")
        # Whether that is true by now is said as soon as the host says so.
        expect(page.locator("#removed")).to_contain_text("Refused on 1 host that it opened")
        client.wait_until_closed(key)
