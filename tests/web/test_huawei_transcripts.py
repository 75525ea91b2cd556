"""CodeArts' and IAM's transcripts hold, the pages show the very same, and no call of theirs is left out."""

from __future__ import annotations

import re

import pytest

from keyrack.web.server import APIS
from tests.services import Service
from tests.transcripts.transcript import HUAWEI, Player, load

DIALECTS = ("codearts", "iam")
ALL = [(dialect, name) for dialect in DIALECTS for name in load(dialect)]
LOGINS = {name: {"X-Auth-Token": f"token-of-{name}"} for name in HUAWEI.logins} | {"nobody": {}}
REPOSITORY = """
[workspace]
name = "acme"
[[repositories]]
id = 4242
path = "acme/site"
members = [{ user = "alice", role = "admin" }]
"""


@pytest.mark.parametrize(("dialect", "name"), ALL)
def test_transcript(team_on_each: Service, dialect: str, name: str) -> None:
    team_on_each.apply(REPOSITORY)
    player = Player(dialect, team_on_each.client, team_on_each.url, LOGINS)
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
        for call in dialect.endpoints if dialect.name in DIALECTS else ():
            pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape((prefix + call.path).rstrip("/")))
            known = any(method == call.method and re.fullmatch(pattern, path) for method, path in played)
            # Of groups there are none, so that nothing of theirs is ever answered.
            none = call.path.endswith("/privatekey/verify") or call.path.startswith("/groups/")
            assert known or none, f"{call.method} {prefix}{call.path}"
