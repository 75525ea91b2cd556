"""Every page in both themes, as somebody meets it who sees little, hears it, or has a keyboard alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from keyrack.web.console.templates import static_files
from tests.console.conftest import COOKIE, session_of
from tests.console.keyboard import Keyboard
from tests.console.moments import EMPTY, Moment, moments
from tests.console.screenshots import PHONE, WIDE, addresses, empty_instance, lifelike_instance
from tests.services import Service

AXE = Path(__file__).parents[1] / "data" / "axe" / "axe.min.js"
# SHA-256 of axe.min.js in axe-core 4.14.1 of npm's registry (MPL-2.0).
AXE_HASH = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
RUN = """async (only) => (await axe.run(document, {resultTypes: ["violations"], ...only})).violations
  .filter((one) => ["serious", "critical"].includes(one.impact))
  .map((one) => one.id + ": " + one.nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(" | "))"""
# The other theme has other colours and nothing else: no other rule is worth its time there.
OF_COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
# Words that say nothing of what happened, or to what.
BARE = re.compile(r"\b(?:Error|Success|Item)s?\b")
UNFOLD = "document.querySelectorAll('main details').forEach((one) => (one.open = true))"
# Tables of which a column is out of sight; the map alone may be as wide as there are hosts.
CUT = """() => [...document.querySelectorAll("main .table:not(.map)")]
  .filter((one) => one.scrollWidth > one.clientWidth + 1)
  .map((one) => `${one.getAttribute("aria-label")}: ${one.scrollWidth - one.clientWidth} pixels`)"""
NARROWEST = 320  # what is left of a screen of 1280 at four times its size
# A small laptop (1024), a screen of 1280 at twice its size (640), and windows that are as wide as somebody likes.
WIDTHS = (WIDE["width"], 1240, 1100, 1024, 860, 640, PHONE["width"], NARROWEST)
# Of a bare Debian or Ubuntu with a browser, which has no others.
WIDER_LETTERS = "body { font-family: 'DejaVu Sans' !important }"
FIRST_PAGE_BYTES = 100_000
STOPS = 60
"""So many are gone to on each page: what a long list repeats is not gone through to its end."""


@pytest.fixture(scope="module")
def lifelike() -> Iterator[Service]:
    """A small workspace with something of everything."""
    with lifelike_instance(people=24, hosts=14) as service:
        yield service


def test_the_accessibility_checker_is_as_published() -> None:
    assert hashlib.sha256(AXE.read_bytes()).hexdigest() == AXE_HASH


def test_no_page_has_a_serious_accessibility_problem_in_either_theme(lifelike: Service, chromium: Browser) -> None:
    """And nothing of a page or a table lies beyond the right edge, also of a phone and of a screen that is enlarged."""
    checker = AXE.read_text("utf-8")
    faults: dict[str, list[str]] = {}
    secret = session_of(lifelike, "olga")
    # The checker is a script of ours in the page, which the page's policy rightly refuses.
    context = chromium.new_context(base_url=lifelike.url, viewport=_size(WIDE), bypass_csp=True)
    page = context.new_page()
    for path, address in addresses(lifelike).items():
        context.clear_cookies()
        if path != "/login":
            context.add_cookies([{"name": COOKIE, "value": secret, "url": lifelike.url}])
        answer = page.goto(address)
        assert answer is not None
        assert answer.status < 500, path
        faults.update({f"{path} {where}": what for where, what in _serious(page, checker).items()})
        page.evaluate(UNFOLD)
        faults.update({f"{path} {where}": what for where, what in _beyond_the_edge(page).items()})
        page.add_style_tag(content=WIDER_LETTERS)
        faults.update({f"{path} {where}, wider letters": what for where, what in _beyond_the_edge(page).items()})
        page.set_viewport_size(_size(WIDE))
    context.close()
    assert not faults, "\n".join(f"{where}: {what}" for where, what in faults.items())


def test_previews_refusals_and_pages_of_members_have_no_serious_accessibility_problem(
    lifelike: Service, chromium: Browser
) -> None:
    """Previews, refusals, menus, a member's and an auditor's pages, and those on which nothing is yet."""
    faults = _at_moments(chromium, lifelike, moments(lifelike))
    with empty_instance() as service:
        faults |= _at_moments(chromium, service, [Moment(f"empty {address}", address) for address in EMPTY])
    assert not faults, "\n".join(f"{where}: {what}" for where, what in faults.items())


def _at_moments(chromium: Browser, service: Service, shown: Sequence[Moment]) -> dict[str, list[str]]:
    """What is serious there, by moment and theme."""
    checker = AXE.read_text("utf-8")
    faults: dict[str, list[str]] = {}
    secrets = {who: session_of(service, who) for who in {moment.who for moment in shown} if who}
    context = chromium.new_context(base_url=service.url, viewport=_size(WIDE), bypass_csp=True)
    for moment in shown:
        context.clear_cookies()
        if moment.who:
            context.add_cookies([{"name": COOKIE, "value": secrets[moment.who], "url": service.url}])
        page = context.new_page()
        page.goto(moment.address)
        if moment.does is not None:
            moment.does(page)
        faults.update({f"{moment.name} {where}": what for where, what in _serious(page, checker).items()})
        page.close()
    context.close()
    return faults


def _serious(page: Page, checker: str) -> dict[str, list[str]]:
    """What of the open page is serious, by theme, and what of its words is bare."""
    faults: dict[str, list[str]] = {}
    page.evaluate(checker)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        found: list[str] = page.evaluate(RUN, {} if scheme == "light" else OF_COLOURS)
        if found:
            faults[scheme] = found
    bare = BARE.findall(page.inner_text("body"))
    if bare:
        faults["words"] = bare
    return faults


def test_the_keyboard_focus_is_visible_at_every_stop_of_every_page(lifelike: Service, chromium: Browser) -> None:
    """Also where a bar lies over the foot of a phone; none holds the keyboard."""
    secret = session_of(lifelike, "olga")
    context = chromium.new_context(base_url=lifelike.url, viewport=_size(PHONE))
    context.add_cookies([{"name": COOKIE, "value": secret, "url": lifelike.url}])
    page = context.new_page()
    keys = Keyboard(page)
    for path, address in addresses(lifelike).items():
        page.goto(address)
        seen: list[int] = []
        while len(seen) < STOPS and (at := keys.next()) is not None and at not in seen[:1]:
            assert at not in seen, f"{path}: the keyboard goes round within the page"
            seen.append(at)
        assert len(seen) > 5, path
    context.close()


def _beyond_the_edge(page: Page) -> dict[str, list[str]]:
    """What of the page lies out of sight, by the window's width."""
    faults: dict[str, list[str]] = {}
    for width in WIDTHS:
        page.set_viewport_size(_size({**PHONE, "width": width}))
        beyond = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if beyond > 0:
            faults[f"{width}"] = [f"{beyond} pixels beyond the edge"]
        cut = page.evaluate(CUT)
        if cut:
            faults[f"{width} tables"] = cut
    return faults


def test_the_first_page_is_small() -> None:
    assert sum(len(file.packed) for file in static_files().values()) < FIRST_PAGE_BYTES / 2


def _size(of: dict[str, int]) -> Any:
    return of
