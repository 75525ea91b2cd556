"""What pages show and their forms do, by plain HTTP: what needs no browser to be seen."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta

import httpx2
import pytest

from keyrack.core.audit import alarms, chain
from keyrack.core.git import deploy_keys, named_repositories
from keyrack.core.hosts import enrolment, reports, servers, system_users
from keyrack.core.keys import credentials, freezes, grants, key_policy, requests, revocation, user_keys
from keyrack.core.next_steps import with_commands
from keyrack.core.people import actors, named_people, users, web_sessions
from keyrack.model import Actor, Role, User
from keyrack.ssh.public_key import parse
from keyrack.store.audit import events as stored_events
from keyrack.web.console.templates import few, in_console_words
from tests.console.conftest import COOKIE, session_of
from tests.core.keys_for_tests import fresh_line, records
from tests.plain_http import PLAIN
from tests.services import Service

KEYRACK = actors.system_actor(1)


class Person:
    """Somebody in front of the console."""

    def __init__(self, service: Service, name: str, client: httpx2.Client) -> None:
        self._client = client
        client.cookies.set(COOKIE, session_of(service, name), domain="127.0.0.1")

    def see(self, path: str, status: int = 200) -> str:
        """The text of a page."""
        answer = self._client.get(path)
        assert answer.status_code == status, answer.text
        return answer.text

    def send(self, path: str, status: int = 303, /, **fields: str) -> str:
        """Send a form; where it leads, or what it says."""
        found = re.search(r'"X-CSRF-Token": "([0-9a-f]+)"', self.see("/logout"))
        assert found is not None
        answer = self._client.post(path, data={"csrf": found[1], **fields})
        assert answer.status_code == status, answer.text
        return answer.headers["location"] if status == 303 else answer.text


@pytest.fixture(scope="module")
def people(console: Service) -> Iterator[dict[str, Person]]:
    """Olga, the owner, and alice, with web-1 in reach; audrey, and bob."""
    with ExitStack() as stack:
        named = {}
        for name in ("olga", "alice", "audrey", "bob"):
            client = httpx2.Client(base_url=console.url, headers={"Accept": "text/html"}, verify=PLAIN)
            named[name] = Person(console, name, stack.enter_context(client))
        yield named


def user(console: Service, name: str) -> User:
    """Somebody of the team."""
    return next(one for one in users.find(console.instance, KEYRACK) if one.name == name)


def actor(console: Service, name: str) -> Actor:
    """The same as who acts."""
    return web_sessions.actor_of(user(console, name), address="127.0.0.1")


@pytest.fixture(scope="module")
def laptop(console: Service) -> str:
    """The line of a key of alice's that is called so, one for the file."""
    line = fresh_line()
    user_keys.add(console.instance, actor(console, "alice"), title="laptop", public_key=line)
    return line


@pytest.fixture(scope="module")
def many(console: Service) -> set[str]:
    """The names of more new hosts than a page of the map has, with a tag, one set for the file."""
    names = {f"many-{number}" for number in range(45)}
    for name in sorted(names, key=lambda one: int(one.partition("-")[2])):
        servers.create(console.instance, KEYRACK, name=name, address="192.0.2.9", tags=["many"])
    return names


def _seen(page: str) -> str:
    found = re.search(r'name="seen" value="([^"]*)"', page)
    assert found is not None
    return found[1]


def _chart(page: str, title: str) -> str:
    return page.partition(f"<figcaption>{title}")[2].partition("</figure>")[0]


def _numbers(page: str, title: str) -> list[int]:
    return [int(number) for number in re.findall(r'<td class="number">(\d+)</td>', _chart(page, title))]


def test_a_key_is_frozen_confirmed_and_given_another_end(
    console: Service, people: dict[str, Person], laptop: str
) -> None:
    key, address = parse(laptop).fingerprint, f"/keys/{parse(laptop).fingerprint}"
    host = servers.create(console.instance, KEYRACK, name="cold-1", address="192.0.2.80")
    grants.give(console.instance, KEYRACK, user_id=user(console, "alice").id, server_id=host.id, system_user="deploy")
    olga, alice = people["olga"], people["alice"]

    preview = olga.send("/freezes", 200, whose="user", name="alice", reason="lost")
    assert "of alice?" in preview
    assert "Frozen" not in alice.see(address), "a preview changes nothing"
    freeze = olga.send("/freezes", whose="user", name="alice", reason="lost", confirmed="yes")
    assert "cold-1" in olga.see(freeze)
    page = alice.see(address)
    assert "Frozen" in page
    assert "no new session on cold-1" in page
    alice.send(f"/confirm-key/{key}", confirmed="yes")
    assert "Frozen" not in alice.see(address)
    assert "cold-1" in alice.see(address)
    olga.send(f"{freeze}/end")
    assert "olga" in olga.see(freeze)

    assert alice.send(f"/renew-key/{key}", seen="", ends="12h", confirmed="yes") == address
    assert "data-exact" in alice.see(address)
    late = {"seen": "", "ends": "1h", "confirmed": "yes"}
    assert "changed since" in alice.send(f"/renew-key/{key}", 409, **late), "another tab had another end"
    assert 'class="problem"' in alice.send(f"/renew-key/{key}", 422, seen=_seen(alice.see(address)), ends="tomorrow")


def test_a_frozen_key_that_opens_repositories_alone_says_so_and_is_confirmed(
    console: Service, people: dict[str, Person]
) -> None:
    line = fresh_line()
    own = user_keys.add(console.instance, actor(console, "bob"), title="git", public_key=line)
    named_repositories.put(console.instance, actor(console, "olga"), "cold/site", {"bob": "developer"})
    print_, opens = parse(line).fingerprint, "Over Git it opens"
    bob, olga = people["bob"], people["olga"]
    for whose in (bob, olga):
        assert opens in whose.see(f"/keys/{print_}")
    freezes.freeze(console.instance, KEYRACK, user="bob")
    for whose in (bob, olga):
        page = whose.see(f"/keys/{print_}")
        assert ("it opens no new session, and no repository," in page, opens in page) == (True, False)
    assert "frozen" in bob.see("/keys")
    assert "It opens repositories again." in bob.send(f"/confirm-key/{print_}", 200)
    bob.send(f"/confirm-key/{print_}", confirmed="yes")
    assert opens in olga.see(f"/keys/{print_}")
    named_people.put(console.instance, KEYRACK, "bob", make=False, disabled=True)
    assert opens not in olga.see(f"/keys/{print_}")
    named_people.put(console.instance, KEYRACK, "bob", make=False, disabled=False)
    user_keys.delete(console.instance, actor(console, "bob"), own.id)


def test_a_grant_to_break_glass_is_marked_and_given_another_end(console: Service, people: dict[str, Person]) -> None:
    olga = people["olga"]
    fields = {"who": "user", "name": "alice", "where": "server", "place": "web-1", "system_user": "root"}
    assert "alice" in olga.send("/access/grant", 200, **fields, break_glass="yes")
    olga.send("/access/grant", **fields, break_glass="yes", confirmed="yes")
    made = grants.page(console.instance, KEYRACK).items[-1]
    assert made.break_glass
    assert "break glass" in olga.see("/grants")
    olga.send(f"/grants/{made.id}/renew", seen="", ends="1h", confirmed="yes")
    olga.send(f"/grants/{made.id}/renew", 409, seen="", ends="1h")
    olga.send(f"/grants/{made.id}/renew", 409, seen="", ends="1h", confirmed="yes")
    assert grants.get(console.instance, KEYRACK, made.id).expires_at is not None


def test_the_alarm_of_a_break_glass_login_links_to_where_it_is_ended(
    console: Service, people: dict[str, Person]
) -> None:
    line = fresh_line()
    terms = {"label": "vault", "username": "deploy", "public_key": line, "break_glass": True}
    credentials.add(console.instance, KEYRACK, 1, **terms)  # type: ignore[arg-type]
    at = f"{console.instance.now():%Y-%m-%dT%H:%M:%SZ}"
    login = {"fingerprint": parse(line).fingerprint, "address": "203.0.113.7", "user": "deploy"}
    held = {**login, "id": "7-700", "started_at": at}
    server = servers.get(console.instance, KEYRACK, 1)
    report = {"revision": 0, "state": "applied", "last_used": [{**login, "at": at}], "sessions": [held]}
    reports.ingest(console.instance, server, report)
    seen = people["olga"].see("/activity?kind=alarm")
    assert "glass broken" in seen
    assert '<a href="/hosts/1#sessions">end it</a>' in seen
    assert "Alarm: " not in seen, "the mark says so"


def test_two_tabs_do_not_overwrite_each_others_settings(people: dict[str, Person]) -> None:
    olga = people["olga"]
    seen = _seen(olga.see("/hosts/1"))
    olga.send("/hosts/1/sshd", seen=seen, prevent_root_login="yes")
    refused = olga.send("/hosts/1/sshd", 409, seen=seen, use_dns="yes")
    assert "What is asked now, and what you asked for" in refused
    assert re.search(r'name="prevent_root_login"[^>]* checked', refused), "the first tab's is kept"
    olga.send("/hosts/1/sshd", seen=_seen(refused), use_dns="yes")


def test_a_webhook_shows_its_secret_once(people: dict[str, Person]) -> None:
    olga = people["olga"]
    olga.send("/settings/webhooks", 422, url="ftp://example.org", level="alarm", actions="*")
    shown = olga.send("/settings/webhooks", 200, url="https://alerts.example.org/x", level="alarm", actions="grants:*")
    secret = re.search(r"krwh_[\w-]{20,}", shown)
    assert secret is not None
    listed = olga.see("/settings/webhooks")
    assert secret[0] not in listed
    address = re.search(r'href="(/settings/webhooks/\d+)"', listed)
    assert address is not None
    assert "grants:*" in olga.see(address[1])
    assert olga.send(f"{address[1]}/remove", confirmed="yes") == "/settings/webhooks"
    olga.see(address[1], 404)


def test_a_persons_page_shows_their_keys_and_access_and_ends_their_session(
    console: Service, people: dict[str, Person]
) -> None:
    olga, alice = people["olga"], people["alice"]
    with httpx2.Client(base_url=console.url, headers={"Accept": "text/html"}, verify=PLAIN) as client:
        elsewhere = Person(console, "alice", client)
        elsewhere.see("/keys")
        newest = web_sessions.own(console.instance, actor(console, "alice"))[0]
        page = olga.see("/people/alice")
        assert "Signed in to the console" in page
        assert "What else they hold" in page
        olga.send("/end-session/alice", id=str(newest.id))
        elsewhere.see("/keys", 303)
    alice.see("/keys")
    alice.send("/end-session/olga", 403, id="1")


def test_the_map_is_filtered_by_tag_before_it_is_cut_and_its_csv_is_whole(
    console: Service, people: dict[str, Person], laptop: str, many: set[str]
) -> None:
    grants.give(console.instance, KEYRACK, user_id=user(console, "alice").id, tag="many", system_user="deploy")
    shown = people["olga"].see("/access?tag=many")
    assert "many-0" in shown
    assert "many-44" not in shown
    onward = re.search(r'href="(/access\?[^"]*)">More hosts', shown)
    assert onward is not None
    assert "many-44" in people["olga"].see(onward[1].replace("&amp;", "&"))
    lines = list(csv.reader(people["olga"].see("/access.csv?tag=many").splitlines()))
    assert {line[1] for line in lines[1:]} == many


@pytest.mark.parametrize("name", ["=1+1", "+1", "@SUM(1)", "\uff1d1+1", "\uff20SUM(1)"])
def test_no_cell_of_the_csv_is_a_formula_to_a_spreadsheet(
    console: Service, people: dict[str, Person], laptop: str, name: str
) -> None:
    tag = f"formula-{ord(name[0])}"
    servers.create(console.instance, KEYRACK, name=name, address="192.0.2.99", tags=[tag])
    grants.give(console.instance, KEYRACK, user_id=user(console, "alice").id, tag=tag, system_user="root")
    (row,) = list(csv.reader(people["olga"].see(f"/access.csv?tag={tag}").splitlines()))[1:]
    assert row[1] == f"'{name}"


def test_a_login_shows_its_restrictions_and_sshds_refusal_and_a_person_what_is_lacking(
    console: Service, people: dict[str, Person]
) -> None:
    instance = console.instance
    narrow = servers.create(instance, KEYRACK, name="narrow", address="192.0.2.86")
    system_users.create(instance, KEYRACK, server_id=narrow.id, username="deploy")
    bob = user(console, "bob")
    line = fresh_line()
    key = user_keys.add(instance, actor(console, "bob"), title="bob's", public_key=line)
    terms = {"sources": ["192.0.2.0/24"]}
    grants.give(instance, KEYRACK, user_id=bob.id, server_id=narrow.id, system_user="deploy", restrictions=terms)
    token = servers.invite(instance, KEYRACK, narrow.id)
    enrolment.enrol(instance, token, {"host": "narrow"}, address="192.0.2.86")
    refused_logins = {"deploy": {"why": "it is locked", "keys": {}}}
    reports.ingest(instance, servers.get(instance, KEYRACK, narrow.id), {"facts": {"logins": refused_logins}})
    olga, words = people["olga"], "sshd refuses deploy: it is locked"
    (shown,) = csv.DictReader(olga.see("/access.csv?q=narrow").splitlines())
    assert (shown["restrictions"], shown["refused"]) == ('from="192.0.2.0/24"', words)
    for path in (f"/hosts/{narrow.id}", "/people/bob", "/access?q=narrow&view=list", "/access?server=narrow"):
        page = html.unescape(olga.see(path))
        assert 'title="from="192.0.2.0/24"">restricted</span>' in page, path
        assert f'title="{words}">refused there</span>' in page, path
    freezes.freeze(instance, KEYRACK, server="narrow")
    assert "Keys of bob are frozen on narrow: they open no new session" in html.unescape(olga.see("/people/bob"))
    user_keys.delete(instance, actor(console, "bob"), key.id)


def test_logins_and_delays_are_drawn_with_their_numbers_beside(console: Service, people: dict[str, Person]) -> None:
    instance = console.instance
    wanted = {"Logins a day": 3, "Hosts obeyed within": 1}
    instance.tallies.write(instance.database, instance.now())  # what other tests told
    before = people["olga"].see("/")
    drawn = servers.create(instance, KEYRACK, name="drawn", address="192.0.2.85")
    token = servers.invite(instance, KEYRACK, drawn.id)
    enrolment.enrol(instance, token, {"host": "drawn"}, address="192.0.2.85")
    started = f"{instance.now():%Y-%m-%dT%H:%M:%SZ}"
    session = {"user": "deploy", "address": "203.0.113.5", "fingerprint": "", "started_at": started}
    report = {"state": "applied", "sessions": [{"id": f"{number}-1", **session} for number in range(3)]}
    for _ in range(2):  # a login that is reported again is no other one
        server = servers.get(instance, KEYRACK, drawn.id)
        reports.ingest(instance, server, {"revision": server.revision, **report})
    instance.tallies.write(instance.database, instance.now())
    page = people["olga"].see("/")
    for title, number in wanted.items():
        assert sum(_numbers(page, title)) - sum(_numbers(before, title)) == number
        chart = _chart(page, title)
        assert "<svg viewBox" in chart
        assert "style=" not in chart


def test_hosts_behind_are_drawn_by_how_far_with_their_numbers_beside(
    console: Service, people: dict[str, Person]
) -> None:
    def counted() -> tuple[int, ...]:
        page = people["olga"].see("/")
        return tuple(_numbers(page, "Hosts behind by")) if "Hosts behind by" in page else (0, 0, 0, 0)

    instance, before = console.instance, counted()
    for name, changes in (("a-little", 1), ("farther", 7)):
        made = servers.create(instance, KEYRACK, name=f"behind-{name}", address="192.0.2.86")
        enrolment.enrol(instance, servers.invite(instance, KEYRACK, made.id), {"host": name}, address="192.0.2.86")
        now = servers.get(instance, KEYRACK, made.id)
        reports.ingest(instance, now, {"revision": now.revision, "state": "applied"})
        for number in range(changes):
            system_users.create(instance, KEYRACK, made.id, username=f"account{number}")
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 0, 1, 0]
    assert "<svg viewBox" in _chart(people["olga"].see("/"), "Hosts behind by")


def test_the_offline_policy_of_a_host_is_set(console: Service, people: dict[str, Person]) -> None:
    olga = people["olga"]
    page = olga.see("/hosts/1")
    seen = re.search(r'name="seen" value="(\d+ [\w-]+)"', page)
    assert seen is not None
    olga.send("/hosts/1/offline", seen=seen[1], after="3600", then="drop-temporary")
    held = servers.get(console.instance, KEYRACK, 1)
    assert (held.offline_after_seconds, held.offline_then) == (3600, "drop-temporary")
    olga.send("/hosts/1/offline", 409, seen=seen[1], after="0", then="keep")


def test_an_access_key_shows_its_secret_once_and_goes(people: dict[str, Person]) -> None:
    olga = people["olga"]
    shown = olga.send("/settings/access-keys", 200, description="a program")
    secret = re.search(r'data-copy="(\w{30,})"', shown)
    assert secret is not None
    listed = olga.see("/settings")
    assert secret[1] not in listed
    address = re.search(r"/settings/access-keys/\w+/remove", listed)
    assert address is not None
    olga.send(address[0], confirmed="yes")
    assert address[0] not in olga.see("/settings")


def test_activity_says_how_far_the_log_is_signed_and_filters_by_who_did_it(
    console: Service, people: dict[str, Person], laptop: str
) -> None:
    chain.extend(console.instance)
    olga = people["olga"]
    assert "Chained and signed" in olga.see("/activity")
    assert "laptop" in olga.see("/activity?person=alice&q=SSH")
    assert "Nothing like that happened" in olga.see("/activity?person=alice&q=nothing-of-the-kind")


def test_a_search_in_a_long_log_says_how_far_it_got_and_goes_on(
    people: dict[str, Person], laptop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_events, "PAGE_SCAN_LIMIT", 2)
    olga = people["olga"]
    page, pages = olga.see("/activity?q=nothing-of-the-kind"), 1
    while onward := re.search(r'href="([^"]+)" rel="next"', page):
        assert "were looked through" in page
        assert "Nothing like that happened" not in page
        page, pages = olga.see(html.unescape(onward[1])), pages + 1
    assert pages > 1
    assert "Nothing like that happened" in page
    lines = olga.see("/activity.jsonl?q=laptop").splitlines()
    assert any("laptop" in json.loads(line)["summary"] for line in lines)


def test_a_repository_has_its_path_as_address(people: dict[str, Person]) -> None:
    olga = people["olga"]
    project = re.search(r'<option value="([^"]+)"', olga.see("/repositories?add=1"))
    assert project is not None
    olga.send("/repositories", project=project[1], name="site")
    found = re.search(r'href="(/repositories/[\w-]+/site)"', olga.see("/repositories"))
    assert found is not None
    assert "git clone" in olga.see(found[1])


def test_hosts_are_filtered_by_state(console: Service, people: dict[str, Person], many: set[str]) -> None:
    olga = people["olga"]
    quiet = servers.create(console.instance, KEYRACK, name="quiet", address="192.0.2.90")
    enrolment.enrol(console.instance, servers.invite(console.instance, KEYRACK, quiet.id), {}, address="192.0.2.90")
    assert "quiet" not in olga.see("/hosts?state=new").partition("<table")[2]
    assert "many-1" in olga.see("/hosts?state=new")
    assert "many-1" not in olga.see("/hosts?state=silent")
    assert "Silent" in olga.see("/hosts?state=silent&q=quiet")
    olga.see("/hosts?state=unknown", 422)


def test_an_alarm_stands_first_on_the_overview_for_a_day(console: Service, people: dict[str, Person]) -> None:
    alarms.raise_once(console.instance, 1, "tried", "Somebody tried something")
    page = people["olga"].see("/")
    assert "Somebody tried something" in page
    (row,) = re.findall(r"<li>.*Somebody tried something.*</li>", people["olga"].see("/activity?kind=alarm"))
    assert " alarm</span>" in row
    assert " refused</span>" not in row, "an alarm is nothing that was refused"


def test_a_key_on_an_account_is_put_there_given_another_end_and_taken_away(
    console: Service, people: dict[str, Person]
) -> None:
    olga = people["olga"]
    line = fresh_line("ci@build")
    fields = {"public_key": line, "label": "pipeline", "username": "deploy", "ends": "12h"}
    refused = olga.send("/hosts/1/keys", 422, **fields, sources="nowhere/33")
    assert 'aria-invalid="true"' in refused
    olga.send("/hosts/1/keys", **fields, sources="10.0.0.0/8")
    put = credentials.find(console.instance, KEYRACK, 1, search="pipeline").items[0]
    address = f"/hosts/1/keys/{put.id}"
    assert f'href="{address}"' in olga.see("/hosts/1")
    page = olga.see(address)
    assert "10.0.0.0/8" in page
    olga.send(f"{address}/renew", 409, seen="", ends="1h")
    olga.send(f"{address}/renew", seen=_seen(page), ends="7d", confirmed="yes")
    held = credentials.find(console.instance, KEYRACK, 1, search="pipeline").items[0]
    assert held.expires_at is not None
    assert held.expires_at - console.instance.now() > timedelta(days=6)
    people["alice"].see(address, 403)
    # What it may do is changed here; of two tabs the second is shown what the first made of it.
    shown = html.unescape(re.findall(r'name="seen" value="([^"]*)"', page)[1])
    asked = {"sources": "10.0.0.0/8", "command": "/bin/backup", "permit_pty": "no"}
    preview = olga.send(f"{address}/restrict", 200, seen=shown, **asked)
    assert "/bin/backup" in preview
    assert dict(credentials.find(console.instance, KEYRACK, 1, search="pipeline").items[0].restrictions) != asked
    olga.send(f"{address}/restrict", seen=shown, **asked, confirmed="yes")
    held = credentials.find(console.instance, KEYRACK, 1, search="pipeline").items[0]
    limits = {"sources": ["10.0.0.0/8"], "command": "/bin/backup", "permit_pty": False}
    assert dict(held.restrictions) == limits
    olga.send(f"{address}/restrict", 409, seen=shown)
    assert 'value="/bin/backup"' in olga.see(address)
    people["alice"].send(f"{address}/restrict", 403)
    olga.send(f"{address}/remove", confirmed="yes")
    olga.see(address, 404)


def test_a_host_is_called_otherwise_and_two_tabs_see_each_other(console: Service, people: dict[str, Person]) -> None:
    olga = people["olga"]
    made = servers.create(console.instance, KEYRACK, name="shop", address="192.0.2.60", tags=["old"])
    address = f"/hosts/{made.id}/change"
    seen = _seen(olga.see(address))
    olga.send(address, seen=seen, name="shop-2", address="192.0.2.61", tags="new, shop", confirmed="yes")
    held = servers.get(console.instance, KEYRACK, made.id)
    assert (held.name, held.address, set(held.tags)) == ("shop-2", "192.0.2.61", {"new", "shop"})
    refused = olga.send(address, 409, seen=seen, name="shop-3", address="192.0.2.62", tags="")
    assert "It is shop-2 at 192.0.2.61 now" in refused
    assert 'value="shop-3"' in refused


def test_activity_is_filtered_by_kind(people: dict[str, Person], laptop: str) -> None:
    olga = people["olga"]
    people["alice"].send("/settings/webhooks", 403, url="https://example.org", level="alarm", actions="*")
    refused = olga.see("/activity?kind=refused").partition("<h2>")[2]
    assert refused.count("<li>") == refused.count(" refused</span>") > 0
    assert "(not allowed)" in refused
    assert "not-allowed" not in refused
    assert "SSH key" in olga.see("/activity?kind=keys")
    assert "pipeline" not in olga.see("/activity?kind=people").partition("<h2>")[2]
    assert "kind takes one of refused, alarm" in olga.see("/activity?kind=nothing")


def test_another_policy_of_keys_says_whom_it_would_hit(
    console: Service, people: dict[str, Person], laptop: str
) -> None:
    olga = people["olga"]
    line = next(one["line"] for one in records("keys_valid.jsonl") if one["name"] == "rsa-2048-e35")
    user_keys.add(console.instance, KEYRACK, title="old one", public_key=line, user_id=user(console, "mallory").id)
    page = olga.see("/settings?type=ssh-ed25519&type=ssh-rsa&bits=2048")
    assert "Nobody" in page.partition('id="policy"')[2]
    longer = olga.see("/settings?type=ssh-ed25519&type=ssh-rsa&bits=3072").partition('id="policy"')[2]
    assert "old one" in longer
    assert "at least 3072 are required" in longer
    assert "laptop" not in longer
    assert "laptop" in olga.see("/settings?type=ssh-rsa&bits=2048").partition('id="policy"')[2]
    assert "Name a number of bits" in olga.see("/settings?type=ssh-rsa&bits=many")
    assert "old one" not in people["alice"].see("/settings?type=ssh-ed25519&bits=3072")


def test_the_offline_policy_of_all_hosts_with_a_tag_is_set(console: Service, people: dict[str, Person]) -> None:
    olga = people["olga"]
    made = servers.create(console.instance, KEYRACK, name="vault", address="192.0.2.70", tags=["vault"])
    olga.send("/settings/offline", tag="vault", after="300", then="drop-all", confirmed="yes")
    assert servers.get(console.instance, KEYRACK, made.id).offline_then == "drop-all"
    assert "after 5 minutes none of Keyrack" in olga.see("/settings")


def test_revoking_says_which_logins_end_and_enforcing_who_gains(console: Service, people: dict[str, Person]) -> None:
    olga, instance = people["olga"], console.instance
    made = servers.create(instance, KEYRACK, name="gate", address="192.0.2.80", mode="observe")
    enrolment.enrol(instance, servers.invite(instance, KEYRACK, made.id), {"host": "gate"}, address="192.0.2.80")
    system_users.create(instance, KEYRACK, made.id, username="deploy")
    old, new = parse(fresh_line("old@laptop")), parse(fresh_line("new@laptop"))
    for key in (old, new):
        credentials.add(
            instance,
            KEYRACK,
            made.id,
            label=key.comment,
            username="deploy",
            public_key=f"{key.canonical} {key.comment}",
        )
    server = servers.get(instance, KEYRACK, made.id)
    found = {"username": "deploy", "path": "/home/deploy/.ssh/authorized_keys", "kind": "key", "line": 3}
    found |= {"type": old.type, "fingerprint": old.fingerprint, "key": old.canonical, "comment": "", "in_force": True}
    login = {"id": "9-1", "user": "deploy", "address": "203.0.113.77", "fingerprint": old.fingerprint}
    login["started_at"] = f"{instance.now():%Y-%m-%dT%H:%M:%SZ}"
    report = {"revision": server.revision, "state": "applied", "keys_found": [found], "sessions": [login]}
    reports.ingest(instance, server, report)
    plan = olga.see(f"/hosts/{made.id}/enforce")
    gains, _, stays = plan.partition("Who gains a way in</h3>")[2].partition("Who stays</h3>")
    assert "new@laptop" in gains
    assert "old@laptop" not in gains
    assert "old@laptop" in stays
    preview = olga.see(f"/revoke/{old.fingerprint}")
    assert "1 session will end" in preview
    assert "deploy on gate from 203.0.113.77" in preview


def test_a_new_person_signs_in_and_registers_a_key_and_their_rights_are_changed(
    console: Service, people: dict[str, Person]
) -> None:
    olga = people["olga"]
    assert "People" in olga.see("/people?add=1")
    fields = {"name": "nora", "role": "member", "own_keys": "yes"}
    assert 'id="wrong-password"' in olga.send("/people", 422, **fields, password="short")
    assert olga.send("/people", **fields, password="nora's first one") == "/people/nora"
    assert "There is a user of that name" in olga.send("/people", 409, name="nora", role="owner")
    assert user(console, "nora").role is Role.MEMBER
    with httpx2.Client(base_url=console.url, headers={"Accept": "text/html"}, verify=PLAIN) as client:
        form = re.search(r'name="csrf" value="([0-9a-f]+)"', client.get("/login").text)
        assert form is not None
        wrong = client.post("/login", data={"csrf": form[1], "name": "nora", "password": "another"})
        assert "The user name or the password is wrong." in wrong.text
        answer = client.post("/login", data={"csrf": form[1], "name": "nora", "password": "nora's first one"})
        assert answer.headers["location"] == "/welcome"
        nora = Person(console, "nora", client)
        nora.send("/keys", title="laptop", public_key=fresh_line())
        seen = _seen(olga.see("/people/nora"))
        olga.send("/rights/nora", seen=seen, role="auditor", confirmed="yes")
        olga.send("/rights/nora", 409, seen=seen, role="owner")
        assert "Add key" not in nora.see("/") + nora.see("/keys")
        nora.send("/keys", 403, title="another", public_key=fresh_line())
    olga.send("/password/nora", password="nora's second one")
    people["alice"].send("/password/nora", 403, password="no password of hers")


def test_the_owner_of_a_revoked_key_reads_why_it_opens_nothing(console: Service, people: dict[str, Person]) -> None:
    alice = people["alice"]
    line = fresh_line()
    address = alice.send("/keys", title="lost", public_key=line)
    assert "lost" in alice.see(address)
    assert "It is taken from alice." in people["olga"].see(f"/revoke/{parse(line).fingerprint}")
    revocation.revoke_everywhere(console.instance, KEYRACK, parse(line).fingerprint, reason="in a taxi")
    assert "was revoked everywhere on" in alice.see(address, 404)


def test_an_unknown_name_can_be_corrected_in_the_form(people: dict[str, Person]) -> None:
    olga = people["olga"]
    olga.send("/groups", group="crew")
    refused = olga.send("/members/crew", 404, member="nobody-here")
    assert 'value="nobody-here"' in refused
    assert "There is no such user." in refused
    assert '<option value="alice">' in refused
    assert "Not there" in olga.send("/members/gone", 404, member="alice")
    refused = olga.send("/settings/offline", 404, tag="nobody-has-it", after="300", then="keep")
    assert 'value="nobody-has-it"' in refused


def test_a_refusal_speaks_of_hosts_and_accounts() -> None:
    words = {
        "There is no such server.": "There is no such host.",
        "The server has no system user of that name. Create it first.": (
            "The host has no account of that name. Create it first."
        ),
        "Name a server, or create a system user.": "Name a host, or create an account.",
        "It is another server's; take 'server one' or \"two servers\".": (
            "It is another host's; take 'server one' or \"two servers\"."
        ),
        "You are not allowed to see servers; this takes the action servers:read.": (
            "You are not allowed to see hosts; this takes the action servers:read."
        ),
    }
    assert {said: in_console_words(said) for said in words} == words


def test_a_refusal_shows_its_commands_as_code() -> None:
    said = with_commands("The server's <b> is not yours. Prove it.", "keys claim", "servers show 5")
    assert in_console_words(said) == (
        "The host&#39;s &lt;b&gt; is not yours. Prove it. On the command line: "
        "<code>keyrack keys claim</code> or <code>keyrack servers show 5</code>"
    )


def test_only_the_person_who_removed_their_key_sees_how_far_the_removal_is(
    console: Service, people: dict[str, Person]
) -> None:
    alice, owner = user(console, "alice"), people["olga"]
    place = servers.create(console.instance, KEYRACK, name="gone-1", address="192.0.2.77")
    system_users.create(console.instance, KEYRACK, place.id, username="deploy")
    token = servers.invite(console.instance, KEYRACK, place.id)
    enrolment.enrol(console.instance, token, {"host": "gone-1", "os": "debian"}, address="192.0.2.77")
    made = user_keys.add(console.instance, KEYRACK, title="lost", public_key=fresh_line(), user_id=alice.id)
    grants.give(console.instance, KEYRACK, user_id=alice.id, server_id=place.id, system_user="deploy")
    people["alice"].send(f"/remove-key/{made.fingerprint}", confirmed="yes")
    shown = people["alice"].see(f"/keys?removed={made.id}")
    assert "not heard yet from" in shown
    assert "gone-1" in shown
    now = servers.get(console.instance, KEYRACK, place.id)
    reports.ingest(console.instance, now, {"revision": now.revision, "state": "applied"})
    assert "gone-1" not in people["alice"].see(f"/keys?removed={made.id}").partition('id="removed"')[2]
    for other, address in ((owner, f"/keys?removed={made.id}"), (people["alice"], "/keys?removed=999999")):
        assert 'id="removed"' not in other.see(address)


def test_the_policy_of_keys_is_set_after_its_preview_and_two_tabs_do_not_overwrite_each_other(
    console: Service, people: dict[str, Person]
) -> None:
    olga = people["olga"]
    button = "Set this policy"
    assert button not in olga.see("/settings")
    held = "&".join(f"type={one}" for one in key_policy.get(console.instance, KEYRACK).types)
    assert button not in olga.see(f"/settings?bits=2048&{held}"), "it would change nothing"
    page = olga.see("/settings?type=ssh-ed25519&bits=3072")
    assert button in page
    seen = re.search(r'name="seen" value="([^"]+)"', page.partition('id="policy"')[2])
    assert seen is not None
    wanted = {"seen": html.unescape(seen[1]), "type": "ssh-ed25519", "bits": "3072"}
    try:
        olga.send("/settings/key-policy", **wanted)
        assert key_policy.get(console.instance, KEYRACK).types == ("ssh-ed25519",)
        assert "Set by olga" in olga.see("/settings")
        late = olga.send("/settings/key-policy", 409, **wanted | {"bits": "4096"})
        assert "changed since it was read" in late
        assert key_policy.get(console.instance, KEYRACK).rsa_minimum_bits == 3072
        people["alice"].send("/settings/key-policy", 403, **wanted)
        line = next(one["line"] for one in records("keys_valid.jsonl") if one["name"] == "rsa-2048-e35")
        assert "are not accepted here" in olga.send("/keys/check", 200, public_key=line)
    finally:
        key_policy.put(console.instance, KEYRACK, types=None, rsa_minimum_bits=None)


def test_a_person_who_may_only_read_is_offered_links_to_read(console: Service, people: dict[str, Person]) -> None:
    alice = actor(console, "alice")
    requests.ask(console.instance, alice, server="web-1", system_user="deploy", duration="1h", reason="a look")
    end = console.instance.now() + timedelta(days=2)
    user_keys.add(console.instance, alice, title="soon over", public_key=fresh_line(), expires_at=end)
    ours, theirs = (people[name].see("/") for name in ("olga", "audrey"))
    for page, offered in ((ours, True), (theirs, False)):
        assert "for access" in page
        assert "soon over" in page
        assert (">Renew</a>" in page) is offered
        assert ('aria-label="Look at the requests"' in page) is offered, "who may not ask may not see that page"


def test_a_repository_is_found_by_its_path_among_however_many_others(
    console: Service, people: dict[str, Person]
) -> None:
    olga = actor(console, "olga")
    made = named_repositories.put(console.instance, olga, "many/one", None)
    first = deploy_keys.add(console.instance, olga, made.id, title="first", public_key=fresh_line())
    for number in range(201):
        named_repositories.put(console.instance, olga, f"many/one-{number}", None)
    assert "many/one" in people["olga"].see("/repositories/many/one")
    asked = people["olga"].send(f"/repositories/{made.id}/keys/{first.id}/remove", 200)
    assert "Remove the deploy key first from many/one?" in asked
    people["olga"].send(f"/repositories/{made.id}/keys/{first.id + 1000}/remove", 404)
    people["olga"].see("/repositories/many/none", 404)


def test_a_long_list_of_names_ends_with_how_many_more_there_are() -> None:
    assert few(["a", "b"]) == "a, b"
    assert few(["a", "b", "c"], 2) == "a, b and 1 more"
