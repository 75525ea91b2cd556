"""Pictures of every page of the console, light, dark and as wide as a phone, of a lifelike workspace; checks nothing.

`python -m tests.console.screenshots FOLDER [PATH …]`: PATH: these pages alone, and moments by their names.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import Connection, text

from keyrack.web.console.api import PAGES
from keyrack.web.console.live import STREAM
from tests.console import lifelike
from tests.console.conftest import ARGUMENTS, CHROMIUM, COOKIE, session_of
from tests.console.first_presses import AT_FIRST, first_presses
from tests.console.moments import EMPTY, Moment, make_empty, moments
from tests.services import Service, running, settings_for

WIDE, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
# Pages as they look once their form is open.
OPENED = {
    "/keys": "/keys?add=1",
    "/hosts": "/hosts?add=1",
    "/requests": "/requests?ask=1",
    "/access": "/access?view=list",
    "/freezes": "/freezes?whose=user",
    "/settings/webhooks": "/settings/webhooks?add=1",
    "/people": "/people?add=1",
    "/settings": "/settings?type=ssh-rsa&bits=4096",
}
VIEWS: tuple[tuple[str, Any, Any], ...] = (("light", "light", WIDE), ("dark", "dark", WIDE), ("phone", "light", PHONE))


@contextmanager
def lifelike_instance(*, people: int = 40, hosts: int = 60) -> Iterator[Service]:
    """A service with a lifelike workspace, olga's."""
    with tempfile.TemporaryDirectory() as folder, running(settings_for(Path(folder) / "data", "")) as service:
        lifelike.make(service.instance, people=people, hosts=hosts)
        yield service


@contextmanager
def empty_instance() -> Iterator[Service]:
    """A service whose workspace has olga alone."""
    with tempfile.TemporaryDirectory() as folder, running(settings_for(Path(folder) / "data", "")) as service:
        make_empty(service)
        yield service


def addresses(service: Service) -> dict[str, str]:
    """Where each page is, with something that is there for the names in its path; by the page's path."""
    found = {}
    for page in PAGES:
        if page.method == "GET" and not page.path.startswith(("/login/", STREAM)) and "." not in page.path:
            found[page.path] = page.path
            for name in re.findall(r"\{(\w+(?::\w+)?)\}", page.path):
                found[page.path] = found[page.path].replace(f"{{{name}}}", example(service, page.path))
    found["/hosts/{server}/keys/{id}"] = key_on_a_host(service)
    return {**found, **{f"{path} opened": address for path, address in OPENED.items()}}


def key_on_a_host(service: Service) -> str:
    """Where a key is that was entered on an account."""
    question = text("SELECT server_id, id FROM credentials ORDER BY id LIMIT 1")
    server, number = service.instance.database.read(lambda connection: connection.execute(question).one())
    return f"/hosts/{server}/keys/{number}"


def example(service: Service, path: str) -> str:
    """Something that is there for the name in a path, by the path's first word."""
    questions = {
        "hosts": "SELECT id FROM servers WHERE host IS NOT NULL ORDER BY id LIMIT 1 OFFSET 1",
        "people": "SELECT name FROM users ORDER BY id LIMIT 1 OFFSET 1",
        "offboard": "SELECT name FROM users ORDER BY id LIMIT 1 OFFSET 1",
        "groups": "SELECT name FROM groups ORDER BY id LIMIT 1",
        # One that opens hosts.
        "keys": "SELECT k.fingerprint FROM user_keys k JOIN users u ON u.id = k.user_id WHERE u.name = 'david' LIMIT 1",
        "revoke": "SELECT fingerprint FROM user_keys WHERE fingerprint IS NOT NULL ORDER BY id LIMIT 1",
        "revoked": "SELECT fingerprint FROM revoked_keys ORDER BY fingerprint LIMIT 1",
        "grants": "SELECT id FROM grants ORDER BY id LIMIT 1",
        "alarms": "SELECT id FROM events WHERE level = 'alarm' AND reason = 'break-glass' ORDER BY id DESC LIMIT 1",
        "activity": "SELECT id FROM events WHERE CAST(details AS TEXT) LIKE '%revisions%' ORDER BY id DESC LIMIT 1",
        "repositories": "SELECT id FROM repositories ORDER BY id LIMIT 1",
        "requests": "SELECT id FROM access_requests ORDER BY id LIMIT 1",
        "freezes": "SELECT id FROM freezes ORDER BY id LIMIT 1",
        "settings": "SELECT id FROM webhooks ORDER BY id LIMIT 1",
        "offboardings": "SELECT id FROM offboardings ORDER BY id LIMIT 1",
    }
    question = questions.get(path.split("/")[1])

    def ask(connection: Connection) -> object:
        return None if question is None else connection.execute(text(question)).scalar()

    value = service.instance.database.read(ask)
    return str(value if value is not None else 1)


def take(folder: Path, only: tuple[str, ...] = ()) -> list[Path]:
    """Take the pictures; answers them."""
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        with lifelike_instance() as service:
            # Nobody speaks for these hosts any more, and they would fall silent while pictures are taken.
            at = service.instance.now()
            object.__setattr__(service.instance, "now", lambda: at)
            shown = [
                Moment(path, address, "" if path == "/login" else "olga")
                for path, address in addresses(service).items()
            ]
            taken = _take(folder, service, browser, [*shown, *moments(service)], only)
        with lifelike_instance() as service:
            presses = first_presses(service)
            shown = [
                Moment(
                    f"first press {page.path}",
                    "/",
                    does=_sends_form(presses[page.path].address(page), presses[page.path].form),
                )
                for page in AT_FIRST
            ]
            taken += _take(folder, service, browser, shown, only)
        with empty_instance() as service:
            shown = [Moment(f"empty {address}", address) for address in EMPTY]
            taken += _take(folder, service, browser, shown, only)
        browser.close()
    return taken


def _sends_form(path: str, fields: Mapping[str, str]) -> Callable[[Page], None]:
    """What sends a change's form, as the page that has it would; path: where to."""
    script = """([path, fields]) => {
        const form = document.createElement('form')
        form.method = 'post'
        form.action = path
        const csrf = document.querySelector('input[name="csrf"]').value
        for (const [name, value] of Object.entries({ csrf, ...fields })) {
            const input = document.createElement('input')
            Object.assign(input, { type: 'hidden', name, value })
            form.append(input)
        }
        document.body.append(form)
        form.submit()
    }"""

    def does(page: Page) -> None:
        with page.expect_navigation():
            page.evaluate(script, [path, dict(fields)])

    return does


def _take(
    folder: Path, service: Service, browser: Browser, shown: Sequence[Moment], only: tuple[str, ...]
) -> list[Path]:
    taken = []
    for view, scheme, size in VIEWS:
        context = browser.new_context(base_url=service.url, color_scheme=scheme, viewport=size)
        secrets: dict[str, str] = {}
        for moment in shown:
            if only and moment.name not in only:
                continue
            context.clear_cookies()
            if moment.who:
                if moment.who not in secrets:
                    secrets[moment.who] = session_of(service, moment.who)
                context.add_cookies([{"name": COOKIE, "value": secrets[moment.who], "url": service.url}])
            page = context.new_page()
            page.set_default_timeout(10_000)
            page.goto(moment.address)
            if moment.does is not None:
                moment.does(page)
            name = re.sub(r"[^a-z0-9]+", "-", moment.name.lower()).strip("-") or "overview"
            taken.append(folder / f"{name}-{view}.png")
            page.screenshot(path=taken[-1], full_page=True)
            page.close()
        context.close()
    return taken


if __name__ == "__main__":
    for picture in take(Path(sys.argv[1]), tuple(sys.argv[2:])):
        print(picture)
