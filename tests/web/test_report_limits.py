"""A host that reports without end is asked to wait; it gets its document all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyrack.core.hosts import login_reports, unmanaged_keys
from keyrack.ssh.public_key import parse
from keyrack.web import agent_api
from tests.core.keys_for_tests import fresh_line
from tests.core.test_host_reports import session
from tests.core.test_unmanaged_keys import entry
from tests.services import Service
from tests.web.runcloud_team import Agent, serving


def report(service: Service, agent: Agent, **fields: object) -> tuple[int, str | None]:
    """Status and Retry-After of a report."""
    answer = service.call("POST", "/agent/v1/report", token=agent.secret, json=fields)
    return answer.status_code, answer.headers.get("Retry-After")


@pytest.mark.parametrize("name", ["MAX_REPORTS", "MAX_LISTS"])
def test_reports_of_one_host_are_counted(
    name: str, team_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_api, name, 3)
    with serving(team_folder, tmp_path / "data") as service:
        made = service.call(
            "POST", "/api/v3/servers", token="token-of-olga", json={"name": "b", "ipAddress": "192.0.2.2"}
        )
        one, other = Agent(service, 1), Agent(service, made.json()["id"])
        for _ in range(3):
            assert report(service, one, keys_found=[entry(fresh_line("robot"))]) == (200, None)
        status, wait = report(service, one, keys_found=[])
        assert status == 429
        assert wait is not None
        assert 1 <= int(wait) <= 60
        assert report(service, other, keys_found=[]) == (200, None)
        assert one.document()["revision"] >= 1
        # A receipt is taken where only the lists of keys were too many.
        assert report(service, one, revision=1, state="applied")[0] == (200 if name == "MAX_LISTS" else 429)


def test_long_reports_of_a_host_are_bounded_and_its_receipts_are_not(
    team_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_api, "MAX_BYTES", 400_000)
    with serving(team_folder, tmp_path / "data") as service:
        agent = Agent(service, 1)
        long = {"words": "x" * 150_000}
        assert [report(service, agent, **long)[0] for _ in range(3)] == [200, 200, 429]
        status, wait = report(service, agent, **long)
        assert status == 429
        assert wait is not None
        assert 1 <= int(wait) <= 60
        assert report(service, agent, revision=1, state="applied") == (200, None)


def test_a_long_list_is_taken_in_whole_and_its_revoked_keys_are_refused(
    team_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unmanaged_keys, "BATCH_SIZE", 20)
    monkeypatch.setattr(login_reports, "BATCH_SIZE", 20)
    with serving(team_folder, tmp_path / "data") as service:
        agent = Agent(service, 1)
        line = fresh_line("robot")
        mine = {"title": "laptop", "key": line}
        added = service.call("POST", "/v4/user/keys", json=mine, headers={"X-Auth-Token": "token-of-alice"})
        assert added.status_code == 201
        revoked = {"fingerprint": parse(line).fingerprint}
        path = "/api/keyrack/v1/keys/revoke"
        assert service.call("POST", path, token="token-of-olga", json=revoked).status_code == 200
        keys = [entry(fresh_line("robot"), line=number) for number in range(70)] + [entry(line, line=99)]
        logins = [session(f"1-{number}") for number in range(50)]
        assert report(service, agent, keys_found=keys, sessions=logins) == (200, None)
        found = service.call(
            "GET", "/api/keyrack/v1/servers/1/unmanaged-keys?per_page=100", token="token-of-olga"
        ).json()
        assert len(found["items"]) == len(keys)
        shown = service.call("GET", "/api/keyrack/v1/servers/1/sessions?per_page=100", token="token-of-olga").json()
        assert len(shown["items"]) == len(logins)
        assert " ".join(line.split()[:2]) in agent.document()["revoked"]
        assert report(service, agent, keys_found=keys[:10], keys_cut=[], sessions=logins[40:]) == (200, None)
        found = service.call(
            "GET", "/api/keyrack/v1/servers/1/unmanaged-keys?per_page=100", token="token-of-olga"
        ).json()
        assert len(found["items"]) == 10
        shown = service.call("GET", "/api/keyrack/v1/servers/1/sessions?per_page=100", token="token-of-olga").json()
        assert len(shown["items"]) == 10
