"""GitLab's and GitHub's transcripts hold, the pages show the very same, and no call of theirs is left out."""

from __future__ import annotations

import re

import pytest

from keyrack.web.server import APIS
from tests.services import Service
from tests.transcripts.transcript import DIALECTS, Player, load

FORGES = ("gitlab", "github")
ALL = [(dialect, name) for dialect in FORGES for name in load(dialect)]
HEADERS = {"gitlab": ("PRIVATE-TOKEN", ""), "github": ("Authorization", "token ")}


@pytest.mark.parametrize(("dialect", "name"), ALL)
def test_transcript(team_on_each: Service, dialect: str, name: str) -> None:
    header, scheme = HEADERS[dialect]
    logins = {who: {header: f"{scheme}token-of-{who}"} for who in DIALECTS[dialect].logins} | {"nobody": {}}
    player = Player(dialect, team_on_each.client, team_on_each.url, logins)
    for step in load(dialect)[name]["steps"]:
        player.play(step)


def test_every_call_is_in_a_transcript() -> None:
    played = {
        (step["request"]["method"], step["request"]["path"].partition("?")[0])
        for dialect, name in ALL
        for step in load(dialect)[name]["steps"]
        if step["answer"]["status"] < 300
    }
    for prefix, dialect in APIS:
        # GitHub's calls are the same ones at its other base.
        for call in dialect.endpoints if dialect.name in FORGES and not prefix.startswith("/api/v3") else ():
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(prefix + call.path))
            known = any(method == call.method and re.fullmatch(pattern, path) for method, path in played)
            assert known, f"{call.method} {prefix}{call.path}"
