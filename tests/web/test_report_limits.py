"""A host that reports without end is told to wait; what it must obey it can ask for all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyrack.web import hosts
from tests.core.keys_for_tests import fresh_line
from tests.core.test_found_keys import entry
from tests.services import Service
from tests.web.runcloud_team import Agent, serving


def report(service: Service, agent: Agent, **told: object) -> tuple[int, str | None]:
    """Status and Retry-After of a report."""
    answer = service.call("POST", "/agent/v1/report", token=agent.secret, json=told)
    return answer.status_code, answer.headers.get("Retry-After")


@pytest.mark.parametrize("name", ["MOST_REPORTS", "MOST_LISTS"])
def test_reports_of_one_host_are_counted(
    name: str, team_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, name, 3)
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
        assert report(service, one, revision=1, state="applied")[0] == (200 if name == "MOST_LISTS" else 429)
