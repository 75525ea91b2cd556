"""Somebody is deleted or shut out while their calls are on the way: no fault of ours, and nothing is left of theirs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from keyrack.core.keys import key_sources, requests, user_keys
from keyrack.core.people import access_keys, api_tokens, tokens
from keyrack.errors import Kind, Refusal
from tests.core.keys_for_tests import fresh_line
from tests.services import Service

OLGA = "token-of-olga"
CALLS: dict[str, Any] = {
    "key": lambda instance, actor: user_keys.add(instance, actor, title="t", public_key=fresh_line()),
    "source": lambda instance, actor: key_sources.put(instance, actor, "alice", "github", account="octocat"),
    "access key": lambda instance, actor: access_keys.create(instance, actor),
    "temporary key": lambda instance, actor: access_keys.issue_temporary(instance, actor),
    "token": lambda instance, actor: api_tokens.make(instance, actor, name="n", scopes=["iam:self"]),
    "request": lambda instance, actor: requests.ask(
        instance, actor, server="web-1", system_user="deploy", duration="1h", reason="release"
    ),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_of_somebody_deleted_since_is_refused(team_on_each: Service, call: str) -> None:
    team = team_on_each
    actor = tokens.authenticate(team.instance, "token-of-alice", address="192.0.2.1", channel="native")
    assert team.call("DELETE", "/api/keyrack/v1/people/alice", token=OLGA).status_code == 204
    with pytest.raises(Refusal) as refused:
        CALLS[call](team.instance, actor)
    assert refused.value.kind in (Kind.UNAUTHENTICATED, Kind.MISSING)


@pytest.mark.parametrize("call", [one for one in CALLS if one != "request"])
def test_a_call_of_a_leaver_leaves_nothing(team_on_each: Service, call: str) -> None:
    team = team_on_each
    actor = tokens.authenticate(team.instance, "token-of-alice", address="192.0.2.1", channel="native")
    gone = team.call("POST", "/api/keyrack/v1/people/alice/offboard", token=OLGA, json={})
    assert gone.status_code == 202
    with pytest.raises(Refusal) as refused:
        CALLS[call](team.instance, replace(actor))
    assert refused.value.code == "user-disabled"


def test_calls_while_their_user_is_deleted_do_not_answer_500(team_on_each: Service) -> None:
    team = team_on_each

    def act(number: int) -> int:
        if number == 6:
            return team.call("DELETE", "/api/keyrack/v1/people/alice", token=OLGA).status_code
        body = {"title": "t", "public_key": fresh_line()}
        return team.call("POST", "/api/keyrack/v1/people/me/keys", token="token-of-alice", json=body).status_code

    with ThreadPoolExecutor(16) as pool:
        ends = set(pool.map(act, range(16)))
    assert ends <= {201, 204, 401}
