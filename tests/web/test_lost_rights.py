"""Somebody loses rights while their calls are on the way: what they began with the old rights changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from keyrack.core.git import repositories
from keyrack.core.hosts import servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, everywhere, grants, requests, revocation, user_keys
from keyrack.core.people import api_tokens, groups, tokens, users
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Role
from keyrack.ssh.public_key import parse
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

OLGA, ADA = "token-of-olga", "token-of-ada"
NATIVE = "/api/keyrack/v1"
WITH_ADA = """
[workspace]
name = "acme"
[[users]]
name = "ada"
role = "admin"
tokens = [{ name = "laptop", token = "token-of-ada", scopes = ["*"] }]
"""
DEPLOY: dict[str, Any] = {"server": "web-1", "system_user": "deploy"}


def _everywhere(instance: Instance, actor: Actor) -> object:
    return everywhere.add(instance, actor, ["web-1"], label="e", username="deploy", public_key=fresh_line())


CALLS: dict[str, Callable[[Instance, Actor], object]] = {
    "credential": lambda instance, actor: credentials.add(
        instance, actor, 1, label="l", username="deploy", public_key=fresh_line()
    ),
    "credential on many": _everywhere,
    "grant": lambda instance, actor: grants.give_named(instance, actor, user="bob", **DEPLOY),
    "server": lambda instance, actor: servers.create(instance, actor, name="n", address="192.0.2.8"),
    "system user": lambda instance, actor: system_users.create(instance, actor, 1, username="x"),
    "user": lambda instance, actor: users.create_user(instance, actor, name="new", role=Role.MEMBER),
    "admin": lambda instance, actor: users.create_user(instance, actor, name="new", role=Role.ADMIN),
    "rights": lambda instance, actor: users.change_rights(instance, actor, 3, role=Role.ADMIN, policies=()),
    "group": lambda instance, actor: groups.ensure(instance, actor, name="g", user_ids=[3]),
    "key of another": lambda instance, actor: user_keys.add(
        instance, actor, title="t", public_key=fresh_line(), user_id=3
    ),
    "revocation": lambda instance, actor: revocation.revoke_everywhere(
        instance, actor, parse(fresh_line()).fingerprint, unknown=True
    ),
    "rule": lambda instance, actor: requests.put_rule(instance, actor, "r"),
    "repository": lambda instance, actor: repositories.ensure(instance, actor, path="a/b", members={}),
    "token of another": lambda instance, actor: api_tokens.make(
        instance, actor, name="n", scopes=["iam:self"], user="bob"
    ),
}


@pytest.fixture
def team(team_on_each: Service) -> Service:
    """The team with an admin, on each kind of database."""
    team_on_each.apply(WITH_ADA)
    return team_on_each


def ada(team: Service) -> Actor:
    """The admin, as a call that came in a moment ago knows her."""
    return tokens.authenticate(team.instance, ADA, address="192.0.2.1", channel="native")


@pytest.mark.parametrize("call", CALLS)
def test_a_call_of_a_former_admin_changes_nothing(team: Service, call: str) -> None:
    actor = ada(team)
    assert team.call("PATCH", f"{NATIVE}/people/ada", token=OLGA, json={"role": "member"}).status_code == 200
    before = done(team)
    with pytest.raises(Refusal) as refused:
        CALLS[call](team.instance, actor)
    assert refused.value.kind is Kind.FORBIDDEN
    assert done(team) == before


@pytest.mark.parametrize("call", ["credential", "grant", "rights"])
def test_a_call_of_an_admin_who_is_shut_out_changes_nothing(team: Service, call: str) -> None:
    actor = ada(team)
    assert team.call("PATCH", f"{NATIVE}/people/ada", token=OLGA, json={"disabled": True}).status_code == 200
    with pytest.raises(Refusal) as refused:
        CALLS[call](team.instance, actor)
    assert refused.value.kind is Kind.UNAUTHENTICATED


@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_made_while_its_rights_hold(team: Service, call: str) -> None:
    CALLS[call](team.instance, ada(team))


@pytest.mark.parametrize("change", [{"role": "member"}, {"disabled": True}])
def test_no_call_with_former_rights_is_logged_after_they_were_taken_away(team: Service, change: dict[str, Any]) -> None:
    """The log has an order, and after the event that took the rights away there is none of hers."""

    def act(number: int) -> int:
        if number == 12:
            return team.call("PATCH", f"{NATIVE}/people/ada", token=OLGA, json=change).status_code
        kinds: tuple[tuple[str, str, dict[str, Any]], ...] = (
            (
                "/api/v3/servers/1/ssh/credentials",
                "POST",
                {"label": f"l{number}", "username": "deploy", "publicKey": fresh_line()},
            ),
            (f"{NATIVE}/grants", "POST", {"user": "bob", **DEPLOY, "reason": str(number)}),
            (f"{NATIVE}/people/new-{number}", "PUT", {}),
        )
        path, method, body = kinds[number % 3]
        return team.call(method, path, token=ADA, json=body).status_code

    with ThreadPoolExecutor(16) as pool:
        ends = list(pool.map(act, range(36)))
    assert set(ends) <= {200, 201, 401, 403}
    lines = done(team)
    (at,) = (at for at, (_, words) in enumerate(lines) if words.startswith(("Made ada", "Disabled ada")))
    assert [words for who, words in lines[at:] if who == "ada"] == []


def done(team: Service) -> list[tuple[str, str]]:
    """Who did what, in order."""
    found = team.call("GET", f"{NATIVE}/events?per_page=200", token=OLGA).json()["items"]
    return [(one["actor"], one["summary"]) for one in reversed(found) if one["outcome"] == "done"]
