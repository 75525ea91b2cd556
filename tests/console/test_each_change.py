"""Each change of the console says what it does before it is made, or can be taken back: those that there are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import httpx2
import pytest

from keyrack.core.hosts import servers, system_users
from keyrack.core.keys import grants, user_keys
from keyrack.core.people import actors, users
from keyrack.model import Role
from keyrack.web.console.api import PAGES
from keyrack.web.console.visits import FIRST_PRESS, ConsolePage
from tests.console.first_presses import AT_FIRST, Example, first_presses
from tests.console.rows import kept
from tests.console.test_pages import KEYRACK, Person
from tests.core.keys_for_tests import fresh_line
from tests.plain_http import PLAIN
from tests.services import Service

CHANGES = [page for page in PAGES if page.method != "GET"]
GETS = {page.path for page in PAGES if page.method == "GET"}


@pytest.fixture(scope="module")
def olga(console: Service) -> Iterator[Person]:
    """The owner at the console."""
    with httpx2.Client(base_url=console.url, headers={"Accept": "text/html"}, verify=PLAIN) as client:
        yield Person(console, "olga", client)


@pytest.fixture(scope="module")
def examples(console: Service) -> Mapping[str, Example]:
    """One for each change whose first press shows what it does."""
    return first_presses(console)


@pytest.mark.parametrize("page", CHANGES, ids=lambda page: page.path)
def test_each_change_is_shown_before_or_confirmed_or_can_be_taken_back(page: ConsolePage) -> None:
    ways = [page.asks is not None, bool(page.preview), bool(page.undo), not page.keeps]
    assert sum(ways) == 1, "say in change(…) which page shows it before, what takes it back, or what it asks first"
    if page.preview:
        assert page.preview in GETS or page.preview == FIRST_PRESS
    if page.undo:
        assert page.undo in {one.path for one in CHANGES}


@pytest.mark.parametrize("page", AT_FIRST, ids=lambda page: page.path)
def test_the_first_press_of_a_button_shows_what_it_would_do_and_changes_nothing(
    console: Service, olga: Person, examples: Mapping[str, Example], page: ConsolePage
) -> None:
    example = examples[page.path]
    path = example.address(page)
    before = kept(console)
    shown = olga.send(path, 200, **example.form)
    after = kept(console)
    assert [(name, before[name], rows) for name, rows in after.items() if rows != before[name]] == []
    assert 'name="confirmed" value="yes"' in shown
    assert f'action="{path}"' in shown.replace("%3A", ":")
    for name, value in example.form.items():
        assert f'name="{name}"' in shown, f"{name}={value} is lost on the way"


def test_the_end_that_a_preview_showed_is_set(console: Service, olga: Person) -> None:
    me = actors.of_user(
        next(user for user in users.find(console.instance, KEYRACK) if user.name == "olga"),
        address="127.0.0.1",
        channel="console",
    )
    key = user_keys.add(console.instance, me, title="another", public_key=fresh_line())
    path = f"/renew-key/{key.fingerprint}"
    shown = olga.send(path, 200, seen="", ends="7d")
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', shown))
    del fields["csrf"]
    assert fields["ends"] == "date"
    olga.send(path, **fields)
    end = user_keys.get(console.instance, me, key.id).expires_at
    assert end is not None
    assert f"{end:%Y-%m-%dT%H:%M:%S}" == fields["until"]


def test_changing_a_hosts_tags_shows_first_who_gains_and_who_loses_access(console: Service, olga: Person) -> None:
    alice = next(user for user in users.find(console.instance, KEYRACK) if user.name == "alice")
    host = servers.create(console.instance, KEYRACK, name="vault-1", address="192.0.2.78", tags=["vault"])
    system_users.create(console.instance, KEYRACK, host.id, username="www")
    grants.give(console.instance, KEYRACK, user_id=alice.id, tag="vault", system_user="www")
    user_keys.add(
        console.instance,
        actors.of_user(alice, address="127.0.0.1", channel="console"),
        title="hers",
        public_key=fresh_line(),
    )
    asked = {"seen": "vault-1 192.0.2.78 vault", "name": "vault-1", "address": "192.0.2.78", "tags": ""}
    shown = olga.send(f"/hosts/{host.id}/change", 200, **asked)
    assert "Who loses" in shown
    assert "alice" in shown.partition("Who loses")[2]
    olga.send(f"/hosts/{host.id}/change", **asked, confirmed="yes")
    assert servers.get(console.instance, KEYRACK, host.id).tags == ()


def test_changing_a_persons_rights_shows_first_what_they_may_then(console: Service, olga: Person) -> None:
    users.create_user(console.instance, KEYRACK, name="ringo", role=Role.ADMIN)
    shown = olga.send("/rights/ringo", 200, seen="admin ", role="member")
    assert "ringo is admin and becomes member." in shown
    assert "They may no longer: " in shown
    olga.send("/rights/ringo", seen="admin ", role="member", confirmed="yes")


def test_a_grant_that_is_given_or_changed_says_itself_before(
    console: Service, olga: Person, examples: Mapping[str, Example]
) -> None:
    for path, words in (
        ("/access/grant", "alice may log in as root on shop-1."),
        ("/grants/{grant}/renew", "alice may log in as www on shop-1."),
        ("/grants/{grant}/restrict", "alice may log in as www on shop-1."),
    ):
        page = next(one for one in AT_FIRST if one.path == path)
        assert words in olga.send(examples[path].address(page), 200, **examples[path].form)
