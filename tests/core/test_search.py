"""A search finds a part of a text in any case, of any letters, and signs stand for themselves; on both databases."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from keyrack.core.audit import events
from keyrack.core.hosts import server_list, servers
from keyrack.core.keys import credentials, user_keys
from keyrack.core.people import groups, named_people
from keyrack.model import EventFilter, Role
from keyrack.store.search import LONGEST
from tests.core.conftest import Team, actor
from tests.core.keys_for_tests import fresh_line

NAME = "École [Ä*%_]? жук Σ"
"""What each of them is called."""


@pytest.fixture
def counts(team: Team) -> Callable[[str], list[int]]:
    """How many servers, users, groups, user keys, credentials and events a search finds."""
    instance, owner, member = team.instance, team.owner, team.member
    servers.create(instance, owner, name=NAME, address="192.0.2.9")
    actor(instance, owner.workspace_id, NAME, Role.MEMBER)
    groups.ensure(instance, owner, name=NAME, user_ids=())
    user_keys.add(instance, member, title=NAME, public_key=fresh_line())
    credentials.add(instance, owner, team.server.id, label=NAME, username="deploy", public_key=fresh_line())

    def found(sought: str) -> list[int]:
        return [
            len(server_list.find(instance, owner, search=sought).items),
            len(named_people.find(instance, owner, search=sought).items),
            len(groups.find(instance, owner, search=sought).items),
            len(user_keys.find(instance, member, search=sought).items),
            len(credentials.find(instance, owner, team.server.id, search=sought).items),
            min(1, len(events.find(instance, owner, EventFilter(search=sought)).items)),
        ]

    return found


def test_a_part_is_found_in_any_case_and_signs_stand_for_themselves(counts: Callable[[str], list[int]]) -> None:
    for sought in ("École", "école", "ÉCOLE", "cole", "[Ä*%_]?", "[ä*%_]?", "жУк", "ЖУК", "σ", "Σ"):
        assert counts(sought) == [1] * 6, sought
    for sought in ("ècole", "É*жук", "[Éé]cole", "É_ole", "É%жук", "%жук%x", "жук?", "Ä]*", "é" * LONGEST, "/" * 5000):
        assert counts(sought) == [0] * 6, sought


def test_events_are_found_by_the_name_of_who_did_it_however_it_is_spelled(team: Team) -> None:
    zoe, _ = actor(team.instance, team.owner.workspace_id, "zoë", Role.ADMIN)
    servers.create(team.instance, zoe, name="web-9", address="192.0.2.9")
    for name in ("zoë", "zoe\u0308"):
        assert events.find(team.instance, team.owner, EventFilter(person=name)).items
