"""What a page showed is gone from memory with its answer, and does not wait for the garbage collector in a circle."""

from __future__ import annotations

import httpx2

from keyrack.core.keys import grants, user_keys
from keyrack.core.keys.access import Reason
from keyrack.core.people import users
from keyrack.core.people.actors import system_actor
from tests.console.conftest import COOKIE, session_of
from tests.core.keys_for_tests import fresh_line
from tests.plain_http import PLAIN
from tests.services import Service
from tests.web.test_no_circles import collected


def test_a_page_leaves_nothing_it_showed_in_memory(console: Service) -> None:
    """The access map of a large fleet left tens of thousands of records, and everybody waited while they were found."""
    instance, keyrack = console.instance, system_actor(1)
    alice = next(one for one in users.find(instance, keyrack) if one.name == "alice")
    user_keys.add(instance, keyrack, title="laptop", public_key=fresh_line(), user_id=alice.id)
    grants.give(instance, keyrack, user_id=alice.id, server_id=1, system_user="deploy")
    with httpx2.Client(base_url=console.url, headers={"Accept": "text/html"}, verify=PLAIN) as client:
        client.cookies.set(COOKIE, session_of(console, "olga"), domain="127.0.0.1")
        with collected() as found:
            for path in ("/access", "/access?view=list", "/people/alice"):
                assert "alice" in client.get(path).text
    assert not [one for one in found if isinstance(one, Reason)]
