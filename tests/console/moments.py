"""Pages at moments that their address alone does not bring: previews, refusals, other people; checks nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from playwright.sync_api import Page
from sqlalchemy import text

from keyrack.core.people import actors, users
from keyrack.model import Role
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

PASSWORD = "olga's password"
LONG = "db-primary-replica-with-a-very-long-name-for-billing-and-reporting.eu-central-1.internal.example.org"
LIMITS = {
    "From where": "10.0.0.0/8 2001:db8:1234:5678::/64 !10.9.0.0/16 *.build.internal.example.org",
    "Only this command": '/usr/local/bin/backup --to "s3://a-bucket-with-a-long-name/daily" --quiet',
    "Forwarding only to": "db.internal:5432 [2001:db8::1]:443",
    "Listening only on": "8080 localhost:9090",
}
PERMISSIONS = ("Terminal", "Port forwarding", "Agent forwarding", "X11 forwarding", "~/.ssh/rc")


@dataclass(frozen=True)
class Moment:
    """A page at a moment. who: signed in as, "" for nobody; does: what is done there before one looks."""

    name: str
    address: str
    who: str = "olga"
    does: Callable[[Page], object] | None = None


def _one(service: Service, question: str, **values: object) -> str:
    return str(service.instance.database.read(lambda connection: connection.execute(text(question), values).scalar()))


def _settles(page: Page) -> None:
    """Asks to settle the alarm that stands first among those that people settle."""
    page.get_by_role("link", name=re.compile(r": glass broken")).click()
    _sends(page, "It is settled")


def moments(service: Service) -> list[Moment]:
    """All of them, in the lifelike workspace."""
    members = "SELECT name FROM users WHERE role = 'member' AND disabled_at IS NULL ORDER BY id LIMIT 1 OFFSET :nth"
    member, leaver = _one(service, members, nth=1), _one(service, members, nth=7)
    auditor = _one(service, "SELECT name FROM users WHERE role = 'auditor' ORDER BY id LIMIT 1")
    frozen = _one(service, "SELECT name FROM users ORDER BY id LIMIT 1 OFFSET 8")
    long_host = _one(service, "SELECT id FROM servers WHERE name = :name", name=LONG)
    another = _one(service, "SELECT server_id FROM host_keys WHERE shown AND NOT confirmed LIMIT 1")
    copied = _one(service, "SELECT id FROM servers WHERE copied_at IS NOT NULL LIMIT 1")
    rolled_back = _one(service, "SELECT id FROM servers WHERE went_back_at IS NOT NULL LIMIT 1")
    granted = _one(service, "SELECT server_id FROM grants WHERE server_id IS NOT NULL ORDER BY id LIMIT 1")
    waits = _one(service, "SELECT id FROM servers WHERE enrolled_at IS NULL ORDER BY id LIMIT 1")
    long_person = _one(service, "SELECT name FROM users WHERE name LIKE 'maximiliane%'")
    strange = _one(service, "SELECT name FROM users ORDER BY id DESC LIMIT 1")
    inside = _one(service, "SELECT server_id FROM sessions ORDER BY id LIMIT 1")
    key = _one(service, "SELECT server_id || '/keys/' || id FROM credentials ORDER BY id LIMIT 1 OFFSET 1")
    own = [
        Moment(f"own{path.replace('/', '-')}", path, member)
        for path in ("/", "/keys", "/access", "/requests", "/requests?ask=1", "/repositories", "/settings")
    ]
    seen = [
        Moment(f"auditor-{number}", path, auditor)
        for number, path in enumerate(
            ("/", "/hosts", f"/hosts/{granted}", f"/people/{member}", "/access", "/requests", "/activity", "/settings")
        )
    ]
    return [
        *own,
        *seen,
        Moment("frozen-keys", "/keys", frozen),
        Moment("host-long-name", f"/hosts/{long_host}"),
        Moment("host-key-unconfirmed", f"/hosts/{another}"),
        Moment("host-copied", f"/hosts/{copied}"),
        Moment("host-copy-gone", f"/hosts/{copied}", does=lambda page: _sends(page, "Its copy is gone")),
        Moment("host-refusing", f"/hosts/{long_host}"),
        Moment("host-went-back", f"/hosts/{rolled_back}"),
        Moment("resync-of-a-host", f"/hosts/{rolled_back}/resync"),
        Moment("hosts-host-key", "/hosts?state=host-key"),
        Moment("alarm-settling", "/", does=_settles),
        Moment("host-key-confirming", f"/hosts/{another}", does=lambda page: _sends(page, "Confirm the host key")),
        Moment("host-waits", f"/hosts/{waits}"),
        Moment("person-long-name", f"/people/{long_person}"),
        Moment("person-of-another-script", f"/people/{strange}"),
        Moment("why", f"/access?server={granted}"),
        Moment("grant-every-limit", "/access/grant", does=_fills_limits),
        Moment("host-key-every-limit", f"/hosts/{granted}/keys", does=_fills_limits),
        Moment("host-key-changes", f"/hosts/{key}", does=_opens_all),
        Moment("everything-folded-out", f"/hosts/{granted}", does=_opens_all),
        Moment("settings-folded-out", "/settings", does=_opens_all),
        Moment("grant-preview", "/access/grant", does=_previews_grant),
        Moment("grant-wrong", "/access/grant", does=_grants_wrongly),
        Moment(
            "freeze-preview",
            "/freezes?whose=user",
            does=lambda page: _freezes(page, member),
        ),
        Moment("member-preview", "/groups/ops", does=lambda page: _sends(page, "Put in", **{"Who joins": leaver})),
        Moment("key-refused", "/keys?add=1", does=_adds_bad_key),
        Moment("key-verdict", "/keys?add=1", does=_types_key),
        Moment("host-refused", "/hosts?add=1", does=_adds_host_nowhere),
        Moment("host-key-preview", f"/hosts/{key}", does=_previews_limits),
        Moment("remove-key", f"/hosts/{key}", does=lambda page: _sends(page, "Remove this key")),
        Moment("end-session", f"/hosts/{inside}", does=lambda page: _presses(page, "Sessions", "End")),
        Moment("again", f"/offboard/{leaver}", does=_offboards),
        Moment("search", "/search?q=a"),
        Moment("search-nothing", "/search?q=zzzzzz"),
        Moment("nothing-found", "/hosts?q=zzzzzz"),
        Moment("nobody-found", "/people?q=zzzzzz"),
        Moment("nothing-happened", "/activity?q=zzzzzz"),
        Moment("no-access-there", "/access?tag=zzzzzz"),
        Moment("palette", "/hosts", does=_searches),
        Moment("keyboard", "/hosts", does=lambda page: page.keyboard.press("?")),
        Moment("account-menu", "/hosts", does=lambda page: page.locator("details.menu > summary").click()),
        Moment("more-menu", "/hosts", does=_opens_more),
        Moment("refused-404", "/hosts/987654"),
        Moment("refused-404-page", "/nowhere"),
        Moment("refused-403", "/people", member),
        Moment("refused-403-host", "/hosts/1", member),
        Moment("refused-401", "/hosts", ""),
        Moment("refused-413", "/keys?add=1", does=_sends_much),
        Moment("refused-form", "/keys?add=1", does=_loses_session),
        Moment("sign-in-wrong", "/login", "", does=_signs_in_wrongly),
        Moment("enrol", "/hosts?add=1", does=lambda page: _sends(page, "Add host", Name="shop-new-1")),
    ]


def _sends(page: Page, button: str, **fields: str) -> None:
    for label, value in fields.items():
        page.get_by_label(label, exact=True).first.fill(value)
    page.locator("main").get_by_role("button", name=button).last.click()
    page.wait_for_load_state()


def _presses(page: Page, table: str, button: str) -> None:
    page.get_by_role("table", name=table).get_by_role("button", name=button).first.click()
    page.wait_for_load_state()


def _opens_all(page: Page) -> None:
    page.evaluate("() => document.querySelectorAll('main details').forEach((one) => { one.open = true })")


def _fills_limits(page: Page) -> None:
    _opens_all(page)
    for label, value in LIMITS.items():
        page.get_by_label(label, exact=False).fill(value)
    for number, label in enumerate(PERMISSIONS):
        page.get_by_label(label, exact=False).select_option(("yes", "no")[number % 2])
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_label("Ends", exact=True).select_option("date")
    page.get_by_label("Day and time", exact=True).fill("2027-03-28T17:30")


def _previews_limits(page: Page) -> None:
    _opens_all(page)
    page.get_by_label("From where").fill("10.0.0.0/8 *.example.org")
    page.get_by_label("Port forwarding").select_option("no")
    _sends(page, "See what it changes")


def _freezes(page: Page, name: str) -> None:
    _sends(page, "See what it stops", **{"Person or host": name})


def _previews_grant(page: Page) -> None:
    page.get_by_label("Whom", exact=True).select_option("group")
    page.get_by_label("Their name", exact=True).fill("ops")
    page.get_by_label("Where", exact=True).select_option("tag")
    page.get_by_label("Host or tag", exact=True).fill("cache")
    _sends(page, "See what it does", Account="deploy")


def _grants_wrongly(page: Page) -> None:
    page.get_by_label("Their name", exact=True).fill("nobody-of-that-name")
    page.get_by_label("Host or tag", exact=True).fill("no-such-host")
    _sends(page, "See what it does", Account="postgres")


def _adds_bad_key(page: Page) -> None:
    page.get_by_label("Public key", exact=True).fill(fresh_line("a@laptop").replace("ssh-ed25519", "ssh-ed25518", 1))
    _sends(page, "Add key", Title="laptop")


def _types_key(page: Page) -> None:
    page.get_by_label("Public key", exact=True).press_sequentially(fresh_line("olga@a-new-laptop"))
    page.get_by_text("A sound key").wait_for()
    page.get_by_label("Ends", exact=True).select_option("date")


def _adds_host_nowhere(page: Page) -> None:
    _sends(page, "Add host", **{"Name": "web-fra-1", "Address (optional)": "no address"})


def _offboards(page: Page) -> None:
    page.get_by_label("Type the name to confirm", exact=True).fill(page.url.rsplit("/", 1)[1])
    page.locator("main").get_by_role("button", name="Offboard").click()


def _searches(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("web")
    page.locator("#found a").first.wait_for()
    page.keyboard.press("ArrowDown")


def _opens_more(page: Page) -> None:
    more = page.locator("nav.bar summary")
    if more.is_visible():
        more.click()


def _sends_much(page: Page) -> None:
    page.get_by_label("Title", exact=True).fill("x")
    page.evaluate("() => { document.querySelector('#field-public_key').value = 'x'.repeat(3000000) }")
    page.locator("main").get_by_role("button", name="Add key").click()
    page.wait_for_load_state()


def _loses_session(page: Page) -> None:
    page.context.clear_cookies()
    page.evaluate("() => { document.querySelector('#field-public_key').value = 'x' }")
    _sends(page, "Add key", Title="laptop")


def _signs_in_wrongly(page: Page) -> None:
    page.get_by_label("User name", exact=True).fill("olga")
    page.get_by_label("Password", exact=True).fill("not hers")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_load_state()


EMPTY = (
    "/",
    "/keys",
    "/keys?add=1",
    "/hosts",
    "/people",
    "/access",
    "/access?view=list",
    "/access/grant",
    "/grants",
    "/freezes",
    "/requests",
    "/repositories",
    "/activity",
    "/settings",
    "/settings/webhooks",
    "/welcome",
    "/welcome?step=2",
    "/welcome?step=3",
)
"""Pages of a workspace in which nothing is yet."""


def make_empty(service: Service) -> None:
    """The workspace acme with olga alone."""
    place = users.create_workspace(service.instance, actors.system_actor(), "acme")
    keyrack = actors.system_actor(place.id)
    users.create_user(service.instance, keyrack, name="olga", role=Role.OWNER, password=PASSWORD)
