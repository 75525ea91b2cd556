"""Every call and every error of RunCloud's contract, as its transcripts tell it; the page of the API shows the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from keyrack.web.runcloud import api as runcloud
from keyrack.web.server import APIS
from tests.services import Service
from tests.transcripts.transcript import Player, load
from tests.web.runcloud_team import LOGINS, Agent, serving

TRANSCRIPTS = load("runcloud")
SETTINGS: dict[str, dict[str, Any]] = {"limit of 2": {"rate_limit": 2}, "cut keys": {"cut_public_key": True}}


@pytest.fixture
def served(team_data: tuple[Path, str], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Service]:
    """A service with the settings that a transcript's `given` names, once on each kind of database."""
    folder, database = team_data
    settings: dict[str, Any] = {}
    for given in TRANSCRIPTS[request.param]["given"]:
        settings |= SETTINGS.get(given, {})
    with serving(folder, tmp_path / "data", database, **settings) as service:
        yield service


@pytest.mark.parametrize(("served", "name"), [(name, name) for name in TRANSCRIPTS], indirect=["served"])
def test_transcript(served: Service, name: str) -> None:
    transcript = TRANSCRIPTS[name]
    player = Player("runcloud", served.client, served.url, LOGINS)
    agent: Agent | None = None
    with ExitStack() as stack:
        if "broken database" in transcript["given"]:
            stack.enter_context(broken_database(served))
        for step in transcript["steps"]:
            if "host" not in step:
                player.play(step)
                continue
            agent = agent or Agent(served, 1)
            agent.obey(**{name: step[name] for name in ("facts", "machine", "sessions") if name in step})


def broken_database(served: Service) -> ExitStack:
    """The database's file does not answer: its table of tokens has another name until the end."""
    stack = ExitStack()

    def rename(old: str, new: str) -> None:
        served.instance.database.write(
            lambda connection: connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}")
        )

    rename("tokens", "tokens_away")
    stack.callback(rename, "tokens_away", "tokens")
    return stack


def test_every_call_has_a_transcript() -> None:
    """Each method of each path of the route table is played, in one version of the API at least."""
    played = {
        (step["request"]["method"], _route(step["request"]["path"]))
        for transcript in TRANSCRIPTS.values()
        for step in transcript["steps"]
        if "request" in step and step["answer"]["status"] == 200
    }
    missing = {(call.method, call.path) for call in runcloud.V3.endpoints} - played
    # The same handler under v2's spelling; two of its four calls are played.
    assert {path for _, path in missing} <= {
        "/servers/{serverId}/sshcredentials",
        "/servers/{serverId}/sshcredentials/{sshId}",
    }


def _route(path: str) -> str:
    """The path of the route table that a played path leads to."""
    path = path.partition("?")[0].rstrip("/")
    for prefix in ("/api/v3/agency", *(prefix for prefix, _ in APIS)):
        if path.startswith(prefix + "/"):
            path = path.removeprefix(prefix)
            break
    pieces = path.split("/")
    for call in runcloud.V3.endpoints:
        wanted = call.path.split("/")
        if len(wanted) == len(pieces) and all(
            one == other or one.startswith("{") for one, other in zip(wanted, pieces, strict=True)
        ):
            return call.path
    return path
