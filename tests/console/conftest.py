"""A running service with people in it, and headless Chromium signed in as one of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from keyrack.core.people import actors, web_sessions
from keyrack.core.work import Attempt
from keyrack.store.people import users, workspaces
from tests.services import Service, running, settings_for

# Debian's; the one without a user interface starts no windows, for less than half of the processor time.
_DEBIANS = ("/usr/lib/chromium/chromium-headless-shell", "/usr/bin/chromium")
CHROMIUM = next((path for path in _DEBIANS if Path(path).exists()), None)  # None is the one that Playwright brought
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
COOKIE = "keyrack-loopback"
PATIENCE_MILLISECONDS = 60_000  # with what a page is to show: only what hangs takes so long, beside whatever else runs
# What a browser says of refusals, and of a network that a test took away.
# A part that is asked for while one goes on to another page is not sent (htmx:sendAbort).
EXPECTED = (
    "the server responded with a status of",
    "ERR_INTERNET_DISCONNECTED",
    *("htmx:afterRequest", "htmx:sendError", "htmx:sendAbort"),
)
SignedIn = Callable[[Page, str], Page]


@pytest.fixture(scope="module")
def console(team_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with the team of tests/services.py, one for the file: tests of a file share what they change."""
    folder = tmp_path_factory.mktemp("console") / "data"
    shutil.copytree(team_folder, folder)
    with running(settings_for(folder, "")) as service:
        yield service


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    """One Chromium for the folder: while it runs, asyncio cannot run on this thread, which other tests need."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser, console: Service) -> Iterator[BrowserContext]:
    """A browser's profile of its own; a page that breaks its own policy or throws fails the test."""
    context = chromium.new_context(base_url=console.url, viewport={"width": 1280, "height": 800})
    context.set_default_timeout(PATIENCE_MILLISECONDS)
    expect.set_options(timeout=PATIENCE_MILLISECONDS)
    faults: list[str] = []
    context.on("weberror", lambda error: faults.append(str(error.error)))

    def note(message: Any) -> None:
        if message.type == "error" and not any(words in message.text for words in EXPECTED):
            faults.append(message.text)

    context.on("console", note)
    yield context
    context.close()
    assert faults == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A page of that browser, signed in as nobody."""
    return context.new_page()


@pytest.fixture
def signed_in(console: Service) -> SignedIn:
    """`signed_in(page, "olga")`: the page's browser is signed in as that user from now on; answers the page."""

    def sign_in(page: Page, name: str) -> Page:
        secret = session_of(console, name)
        page.context.add_cookies([{"name": COOKIE, "value": secret, "url": console.url}])
        return page

    return sign_in


def session_of(service: Service, name: str, workspace: str = "acme") -> str:
    """The secret of a new session of a user, as the cookie of a browser holds it."""
    instance = service.instance

    def found(connection: Any) -> Any:
        place = workspaces.workspace_by_name(connection, workspace)
        assert place is not None
        return users.user_by_name(connection, place.id, name)

    user = instance.database.read(found)
    assert user is not None
    actor = actors.of_user(user, address="127.0.0.1", channel="console")
    with Attempt(instance, actor, "iam:self", "sign in", target_kind="session") as attempt:
        return attempt.write(lambda work: web_sessions.begin(work, user, method="password", user_agent="tests").secret)
