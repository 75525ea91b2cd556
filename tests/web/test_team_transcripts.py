"""The transcripts that need no more than a team hold, and no call is left out; each API but our own has transcripts."""

from __future__ import annotations

import re

import pytest

from keyrack.web.native.api import CHANNEL
from keyrack.web.server import APIS
from tests.generated import MEMBERS_MAY
from tests.services import Service
from tests.transcripts.transcript import DIALECTS, Player, load

OF_A_TEAM = tuple(name for name, dialect in DIALECTS.items() if dialect.team)
ALL = [(dialect, name) for dialect in OF_A_TEAM for name in load(dialect)]
DONE = [
    (step["request"]["method"], step["request"]["path"].partition("?")[0], step["request"].get("as", "alice"))
    for dialect, name in ALL
    for step in load(dialect)[name]["steps"]
    if step["answer"]["status"] < 300
]
"""The calls that were answered: method, path, who called."""


@pytest.mark.parametrize(("dialect", "name"), ALL)
def test_transcript(team_on_each: Service, dialect: str, name: str) -> None:
    header, scheme = DIALECTS[dialect].header
    logins = {who: {header: f"{scheme}token-of-{who}"} for who in DIALECTS[dialect].logins} | {"nobody": {}}
    player = Player(dialect, team_on_each.client, team_on_each.url, logins)
    for step in load(dialect)[name]["steps"]:
        player.play(step)


def test_every_api_has_transcripts() -> None:
    """Keyrack's own API has its page by hand; each other one's page is made of what its tests play."""
    assert {dialect.name for _, dialect in APIS} - {CHANNEL} == set(DIALECTS)
    for name in DIALECTS:
        assert load(name), f"tests/transcripts/{name} holds no transcript"


def test_every_call_is_in_a_transcript() -> None:
    played = {(method, path) for method, path, _ in DONE}
    for prefix, dialect in APIS:
        # GitHub's calls are the same ones at its other base.
        for call in dialect.endpoints if dialect.name in OF_A_TEAM and not prefix.startswith("/api/v3") else ():
            known = any(method == call.method and _matches(prefix + call.path, path) for method, path in played)
            assert known, f"{call.method} {prefix}{call.path}"


def test_members_may_make_the_changes_that_transcripts_show_them_make() -> None:
    """Else tests/web/test_generated.py fails, and only when chance takes the call."""
    for prefix, dialect in APIS:
        for call in dialect.endpoints if dialect.name in OF_A_TEAM and not prefix.startswith("/api/v3") else ():
            who_did = {who for one, path, who in DONE if one == call.method and _matches(prefix + call.path, path)}
            name = f"{call.method} {prefix}{call.path}"
            if call.method != "GET" and "alice" in who_did:
                assert name in MEMBERS_MAY, f"{name} is not in MEMBERS_MAY of tests/generated.py"


def _matches(pattern: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(pattern)), path) is not None
