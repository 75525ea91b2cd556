"""Who is logged in, as hosts tell it: numbers that stay, labels of keys, ends that are asked for until they come."""

from __future__ import annotations

from typing import Any

from keyrack.ssh.public_key import parse
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.web.runcloud_team import Agent

SESSIONS = "/api/v3/servers/1/ssh/sessions"


def reported_session(name: str, **fields: Any) -> dict[str, Any]:
    """A login as an agent tells it."""
    return {
        "id": name,
        "user": "deploy",
        "address": "198.51.100.9",
        "fingerprint": "",
        "started_at": "2024-07-23T05:04:20Z",
        **fields,
    }


def listed(team: Service) -> list[Any]:
    """The sessions of the server."""
    found: list[Any] = team.call("GET", SESSIONS, token="token-of-olga").json()["data"]
    return found


def test_labels_come_from_the_servers_keys_and_from_users_keys(team: Service) -> None:
    own, users, unknown = fresh_line(), fresh_line(), fresh_line()
    for label, username in (("on-root", "root"), ("on-deploy", "deploy")):
        body = {"label": label, "username": username, "publicKey": own}
        assert team.call("POST", "/api/v3/servers/1/ssh/credentials", token="token-of-olga", json=body).is_success
    added = team.call(
        "POST", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}, json={"title": "my laptop", "key": users}
    )
    assert added.is_success, added.text
    prints = [parse(line).fingerprint for line in (own, own, own, users, unknown)]
    accounts = ["root", "deploy", "runcloud", "deploy", "deploy"]
    sessions = [
        reported_session(f"s{number}", user=account, fingerprint=fingerprint)
        for number, (account, fingerprint) in enumerate(zip(accounts, prints, strict=True))
    ]
    Agent(team, 1).obey(sessions=[*sessions, reported_session("s9")])
    found = listed(team)
    assert [session["label"] for session in found] == ["on-root", "on-deploy", "on-root", "my laptop", None, None]
    assert [session["fingerprint"] for session in found] == [*prints, None]


def test_ending_a_session_is_asked_for_until_the_host_reports_that_it_ended(team: Service) -> None:
    agent = Agent(team, 1)
    agent.obey(sessions=[reported_session("a"), reported_session("b")])
    first, second = listed(team)
    before = agent.document()
    assert not before.get("end_sessions")
    ended = team.call("DELETE", f"{SESSIONS}/{first['id']}", token="token-of-olga").json()
    assert ended == {**first, "ending": True}
    for _ in range(2):
        now = agent.document()
        assert (now["revision"] > before["revision"], now["end_sessions"]) == (True, ["a"])
        agent.obey()
        assert listed(team) == [{**first, "ending": True}, second]
    agent.obey(sessions=[reported_session("b"), reported_session("c")])
    assert not agent.document().get("end_sessions")
    left = listed(team)
    assert (left[0]["id"], len(left)) == (second["id"], 2)
    assert team.call("DELETE", f"{SESSIONS}/{first['id']}", token="token-of-olga").status_code == 404
    agent.obey(sessions=[])
    assert listed(team) == []
