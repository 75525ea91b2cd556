"""Signing in through a certified OpenID provider, npm's oidc-provider, in a real browser; installed first, so long."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.ports import free_port
from tests.services import TEAM, Service, running, settings_for

VERSION = "9.13.3"
pytestmark = pytest.mark.skipif(
    not os.environ.get("KEYRACK_LONG") or shutil.which("npm") is None, reason="it takes a minute, and npm"
)


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose people that provider signs in."""
    folder: Path = tmp_path_factory.mktemp("certified")
    quiet = ["--no-audit", "--no-fund", "--prefix", str(folder)]
    subprocess.run(["npm", "install", *quiet, f"oidc-provider@{VERSION}"], check=True, capture_output=True, timeout=240)
    script = folder / "provider.mjs"
    shutil.copyfile(Path(__file__).with_name("provider.mjs"), script)
    port = free_port()
    settings = settings_for(
        folder / "data",
        "",
        oidc_issuer=f"http://127.0.0.1:{port}",
        oidc_client_id="keyrack",
        oidc_client_secret="a secret that both know, long enough",
        oidc_networks="127.0.0.0/8",
        oidc_roles="staff=member",
        oidc_name="Example",
    )
    command = ["node", str(script), str(port), f"{settings.url}/login/oidc/callback"]
    started = subprocess.Popen([*command, f"{settings.url}/login/oidc/backchannel"], stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        assert started.stdout.readline().strip() == "ready"
        with running(settings) as service:
            service.apply(TEAM)
            yield service
    finally:
        started.terminate()
        started.communicate(timeout=20)


def test_a_person_comes_through_the_provider(chromium: Browser, console: Service) -> None:
    # Not the page of the other tests, which lets nothing be amiss: the provider's own pages ask for fonts elsewhere.
    page = chromium.new_page(base_url=console.url)
    page.goto("/login")
    page.get_by_role("link", name="Sign in with Example").click()
    page.locator('input[name="login"]').fill("nina")
    page.locator('input[name="password"]').fill("anything")
    page.get_by_role("button", name="Sign-in").click()
    page.get_by_role("button", name="Continue").click()
    expect(page).to_have_url(re.compile(f"^{re.escape(console.url)}/"))
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.locator("details.menu summary").click()
    expect(page.get_by_text("Signed in as nina, member")).to_be_visible()
    page.close()
