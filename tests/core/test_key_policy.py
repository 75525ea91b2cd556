"""A workspace says which keys it accepts: never less strictly than the service, held by every process and by a seal."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from keyrack import app
from keyrack.core.audit import events
from keyrack.core.hosts import servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, damaged_rows, kept_policies, key_policy, standing_user_keys, user_keys
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor
from keyrack.store.tables import key_policies
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line, records
from tests.waiting import wait_until

RSA = next(one["line"] for one in records("keys_valid.jsonl") if one["name"] == "rsa-2048-e35")


@pytest.fixture
def fresh_for(monkeypatch: pytest.MonkeyPatch) -> float:
    """For how many seconds a process uses a policy that it has read: less than usual, as tests wait for so long."""
    monkeypatch.setattr(kept_policies, "FRESH_SECONDS", 0.1)
    return kept_policies.FRESH_SECONDS


def refused(instance: Instance, actor: Actor, line: str) -> str:
    """The code with which a key of one's own is refused, "" where it is taken; it is gone again then."""
    try:
        made = user_keys.add(instance, actor, title="a key", public_key=line)
    except Refusal as refusal:
        return refusal.code
    user_keys.delete(instance, actor, made.id)
    return ""


def test_a_stricter_policy_holds_for_new_keys_and_leaves_those_that_are_there(team: Team) -> None:
    instance, owner = team.instance, team.owner
    kept = user_keys.add(instance, team.member, title="old one", public_key=RSA)
    credentials.add(instance, owner, team.server.id, label="host", username="deploy", public_key=RSA)
    assert key_policy.get(instance, team.member).set_at is None
    made = key_policy.put(instance, owner, types=["ssh-ed25519", "ssh-rsa"], rsa_minimum_bits=3072)
    assert (made.types, made.rsa_minimum_bits, made.set_by) == (("ssh-ed25519", "ssh-rsa"), 3072, owner.name)
    assert key_policy.get(instance, team.member) == made
    hit = key_policy.hits(instance, owner, types=made.types, rsa_minimum_bits=made.rsa_minimum_bits).items
    assert [(one.user, one.place) for one in hit] == [("alice", ""), ("", "deploy on web-1")]
    assert {one.title for one in hit} == {"old one", "host"}
    assert refused(instance, owner, RSA) == "key-too-short"
    with pytest.raises(Refusal, match="at least 3072"):
        credentials.add(instance, owner, team.server.id, label="late", username="deploy", public_key=RSA)
    key_policy.put(instance, owner, types=["ssh-ed25519"])
    assert key_policy.get(instance, owner).rsa_minimum_bits == 3072, "what is left out stays"
    assert refused(instance, owner, RSA) == "key-type-not-allowed"
    assert refused(instance, owner, fresh_line()) == ""
    assert [one.id for one in user_keys.find(instance, team.member).items] == [kept.id]
    # A program that says anew what stands is not refused for what it registered before.
    standing_user_keys.put(instance, team.member, title="old one", public_key=RSA)
    log = [one for one in events.find(instance, owner, limit=50).items if one.action == "keys:rule"]
    assert [one.outcome for one in log] == ["done", "done"]
    assert log[0].details["before"] == {"key_types": ["ssh-ed25519", "ssh-rsa"], "rsa_minimum_bits": 3072}
    assert log[0].details["after"] == {"key_types": ["ssh-ed25519"], "rsa_minimum_bits": 3072}
    assert log[1].details["before"] is None
    key_policy.put(instance, owner, types=None, rsa_minimum_bits=None)
    user_keys.delete(instance, team.member, kept.id)
    assert refused(instance, team.member, RSA) == ""


def test_the_keys_that_a_policy_would_refuse_are_listed_on_pages_of_any_size(team: Team) -> None:
    instance, owner = team.instance, team.owner
    other = servers.create(instance, owner, name="a first by name", address="192.0.2.11")
    system_users.create(instance, owner, other.id, username="deploy")
    for number in range(3):
        for who in (team.member, owner):
            user_keys.add(instance, who, title=f"{who.name} {number}", public_key=fresh_line())
        for server in (other, team.server):
            credentials.add(instance, owner, server.id, label=f"{number}", username="deploy", public_key=fresh_line())
    tried: dict[str, Any] = {"types": ["ssh-rsa"], "rsa_minimum_bits": 2048}
    whole = key_policy.hits(instance, owner, **tried)
    assert whole.next is None
    assert [one.title for one in whole.items[:6]] == [
        f"{who} {number}" for who in ("alice", "olga") for number in range(3)
    ]
    by_server = [f"deploy on {server}" for server in ("web-1", "a first by name") for _ in range(3)]
    assert [one.place for one in whole.items[6:]] == by_server
    for limit in (1, 2, 5, 6, 7, 12, 13):
        items: list[key_policy.Hit] = []
        cursor: str | None = ""
        while cursor is not None:
            page = key_policy.hits(instance, owner, **tried, cursor=cursor, limit=limit)
            assert len(page.items) <= limit
            items += page.items
            cursor = page.next
        assert tuple(items) == whole.items, limit
    for wrong in ("x", "WzEsMiwzXQ", "WyIiLDEsMiwzXQ"):
        with pytest.raises(Refusal) as no:
            key_policy.hits(instance, owner, **tried, cursor=wrong)
        assert no.value.field == "cursor"


@pytest.mark.parametrize(
    "wanted",
    [
        {"types": ["ssh-dss"]},
        {"types": []},
        {"types": "ssh-rsa"},
        {"rsa_minimum_bits": 1024},
        {"rsa_minimum_bits": 1e5},
    ],
    ids=str,
)
def test_a_key_policy_cannot_be_less_strict_than_the_service(team: Team, wanted: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as no:
        key_policy.put(team.instance, team.owner, **wanted)
    assert no.value.kind is Kind.INVALID
    assert key_policy.get(team.instance, team.owner).set_at is None


def test_a_member_cannot_set_the_key_policy(team: Team) -> None:
    with pytest.raises(Refusal) as no:
        key_policy.put(team.instance, team.member, rsa_minimum_bits=4096)
    assert no.value.kind is Kind.FORBIDDEN
    with pytest.raises(Refusal):
        key_policy.hits(team.instance, team.member, types=["ssh-ed25519"], rsa_minimum_bits=2048)


def test_another_process_obeys_within_its_bound(team: Team, fresh_for: float) -> None:
    other = app.open_instance(team.instance.settings)
    try:
        assert refused(other, team.owner, RSA) == "", "so that it knows what held before"
        key_policy.put(team.instance, team.owner, types=["ssh-ed25519"])
        assert refused(team.instance, team.owner, RSA) == "key-type-not-allowed", "the process that set it, at once"
        time.sleep(fresh_for)
        assert refused(other, team.owner, RSA) == "key-type-not-allowed"
        key_policy.put(other, team.owner, types=None)
        wait_until(lambda: refused(team.instance, team.owner, RSA) == "", "the looser policy")
    finally:
        other.database.close()


@pytest.mark.parametrize("how", ["loosened", "deleted", "put back"])
def test_a_key_policy_changed_in_the_database_allows_no_more(team: Team, fresh_for: float, how: str) -> None:
    instance, owner = team.instance, team.owner
    key_policy.put(instance, owner, types=["ssh-ed25519", "ssh-rsa"])
    former = instance.database.read(lambda c: dict(c.execute(select(key_policies)).mappings().one()))
    key_policy.put(instance, owner, types=["ssh-ed25519"])
    changes: dict[str, list[Any]] = {
        "loosened": [update(key_policies).values(key_types=["ssh-ed25519", "ssh-rsa"])],
        "deleted": [delete(key_policies)],
        "put back": [delete(key_policies), insert(key_policies).values(**former)],
    }
    for statement in changes[how]:
        instance.database.write(partial(Connection.execute, statement=statement))
    time.sleep(fresh_for)
    for line in (RSA, fresh_line()):
        assert refused(instance, owner, line) == "key-policy-damaged"
    assert key_policy.get(instance, owner).damaged
    assert [row.name for row in damaged_rows.find(instance, owner).items] == ["key-policy:1"]
    with pytest.raises(Refusal, match="say both"):
        key_policy.put(instance, owner, rsa_minimum_bits=3072)
    key_policy.put(instance, owner, types=["ssh-ed25519"], rsa_minimum_bits=None)
    assert refused(instance, owner, RSA) == "key-type-not-allowed"
    assert refused(instance, owner, fresh_line()) == ""
    assert damaged_rows.find(instance, owner).items == ()


def test_a_damaged_policy_that_is_removed_leaves_the_services(team: Team, fresh_for: float) -> None:
    instance, owner = team.instance, team.owner
    key_policy.put(instance, owner, types=["ssh-ed25519"])
    instance.database.write(lambda connection: connection.execute(update(key_policies).values(rsa_minimum_bits=4096)))
    damaged_rows.remove(instance, owner, "key-policy:1")
    time.sleep(fresh_for)
    assert refused(instance, owner, RSA) == ""
    assert damaged_rows.find(instance, owner).items == ()
