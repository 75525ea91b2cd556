"""A key that no person registered as their own is found by its fingerprint, with where it opens."""

from __future__ import annotations

import re
from urllib.parse import quote

from playwright.sync_api import Page, expect

from keyrack.core.git import deploy_keys, named_repositories
from keyrack.core.hosts import enrolment, reports, servers, system_users
from keyrack.core.keys import credentials
from keyrack.core.people import actors
from keyrack.ssh.public_key import PublicKey, parse
from tests.console.conftest import SignedIn
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

KEYRACK = actors.system_actor(1)


def _host(console: Service, name: str, key: PublicKey | None = None) -> int:
    """A host with the account deploy; key: one that it finds in a file of that account."""
    instance = console.instance
    made = servers.create(instance, KEYRACK, name=name, address="192.0.2.90")
    enrolment.enrol(instance, servers.invite(instance, KEYRACK, made.id), {"host": name}, address="192.0.2.90")
    system_users.create(instance, KEYRACK, made.id, username="deploy")
    if key is not None:
        found = {"username": "deploy", "path": "/home/deploy/.ssh/authorized_keys", "kind": "key", "line": 3}
        found |= {"type": key.type, "fingerprint": key.fingerprint, "key": key.canonical, "comment": ""}
        server = servers.get(instance, KEYRACK, made.id)
        report = {"revision": server.revision, "state": "applied", "keys_found": [{**found, "in_force": True}]}
        reports.ingest(instance, server, report)
    return made.id


def test_a_key_on_accounts_leads_from_the_search_and_from_its_host_to_where_it_opens(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    key = parse(fresh_line())
    registered = _host(console, "robots")
    found_on = _host(console, "robots-by-hand", key)
    made = credentials.add(
        console.instance, KEYRACK, registered, label="robot", username="deploy", public_key=key.canonical
    )
    signed_in(page, "olga").goto(f"/search?q={quote(key.fingerprint)}")
    main = page.get_by_role("main")
    main.get_by_role("link", name="robot: deploy on robots and more").click()
    rows = main.get_by_role("table", name="Accounts that it opens").get_by_role("row")
    expect(rows.filter(has=page.get_by_role("link", name="robots", exact=True))).to_contain_text("registered as robot")
    expect(rows.filter(has_text="robots-by-hand")).to_contain_text("/home/deploy/.ssh/authorized_keys")
    expect(main.get_by_role("button", name="Revoke everywhere…")).to_be_visible()
    main.get_by_role("link", name="robot", exact=True).click()
    expect(page).to_have_url(re.compile(f"/hosts/{registered}/keys/{made.id}$"))
    main.locator(".fingerprint a").click()
    expect(main).to_contain_text("No person registered it as their own.")
    main.get_by_role("link", name="robots-by-hand").click()
    expect(page).to_have_url(re.compile(f"/hosts/{found_on}$"))


def test_a_deploy_keys_page_links_its_repositories_to_those_alone_who_may_see_them(
    page: Page, console: Service, signed_in: SignedIn
) -> None:
    key = parse(fresh_line())
    repository = named_repositories.put(console.instance, KEYRACK, "many/keyed", None)
    deploy_keys.add(console.instance, KEYRACK, repository.id, title="builds", public_key=key.canonical)
    olga = signed_in(page, "olga")
    olga.goto(f"/search?q={quote(key.fingerprint)}")
    main = page.get_by_role("main")
    main.get_by_role("link", name="builds: deploy key of many/keyed").click()
    expect(main).to_contain_text("It opens no account on a host.")
    main.get_by_role("link", name="many/keyed").click()
    expect(main).to_contain_text("builds")
    member = signed_in(page, "alice")
    member.goto(f"/search?q={quote(key.fingerprint)}")
    expect(main).to_contain_text("Nothing has that in its name")
    member.goto(f"/keys/{quote(key.fingerprint)}")
    expect(main).not_to_contain_text("many/keyed")
    expect(page).to_have_title(re.compile("Not there"))
