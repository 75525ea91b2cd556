"""Restrictions on keys and grants: typed, refused with words when wrong, and never left off on the way to a host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from keyrack.core import validation
from keyrack.core.audit import events
from keyrack.core.hosts import documents
from keyrack.core.keys import credentials, grants, restricting, user_keys
from keyrack.errors import Kind, Refusal
from keyrack.ssh.public_key import parse
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line

SECURITY_KEY = (
    "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIF01XsFbRs9IxxlVU6F+nYJDqn+ukux1kgt"
    "IqvtZlhe7AAAABHNzaDo="
)


def lines(team: Team) -> list[Mapping[str, Any]]:
    """What the document says of deploy."""
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    found: list[Mapping[str, Any]] = json.loads(signed.text)["users"].get("deploy", [])
    return found


def options(team: Team) -> list[list[str]]:
    """The options of each line, in order."""
    return [list(line["options"]) for line in lines(team)]


def add(team: Team, label: str, line: str, **more: Any) -> Any:
    """Put a key on deploy."""
    return credentials.add(
        team.instance, team.owner, team.server.id, label=label, username="deploy", public_key=line, **more
    )


def give(team: Team, **more: Any) -> Any:
    """Let alice in as deploy."""
    return grants.give(
        team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy", **more
    )


def test_a_keys_restrictions_reach_the_host(team: Team) -> None:
    wanted = {"sources": ["10.0.0.0/8"], "command": 'echo "hi"', "restrict": True, "permit_pty": True}
    credential = add(team, "a", fresh_line(), restrictions={**wanted, "agent_forwarding": None})
    assert credential.restrictions == wanted
    assert options(team) == [["restrict", 'from="10.0.0.0/8"', 'command="echo \\"hi\\""', "pty"]]


@pytest.mark.parametrize("name", ["sources", "permitopen", "permitlisten"])
def test_an_empty_list_is_not_taken_for_no_restriction(team: Team, name: str) -> None:
    """Whoever puts together from where a key may log in, and finds no place, does not mean everywhere."""
    with pytest.raises(Refusal, match=f"{name} names nothing") as wrong:
        add(team, "a", fresh_line(), restrictions={name: []})
    assert (wrong.value.kind, wrong.value.field) == (Kind.INVALID, "restrictions")
    with pytest.raises(Refusal, match=f"{name} names nothing"):
        give(team, restrictions={name: []})


def test_a_keys_restrictions_are_changed_under_its_id(team: Team) -> None:
    credential = add(team, "a", fresh_line(), restrictions={"sources": ["10.0.0.0/8"]})
    before = credential.revision
    changed = restricting.credential(team.instance, team.owner, credential.id, {"command": "/bin/backup"})
    assert (changed.id, dict(changed.restrictions), changed.acknowledged) == (
        credential.id,
        {"command": "/bin/backup"},
        False,
    )
    assert changed.revision > before
    assert options(team) == [['command="/bin/backup"']]
    same = restricting.credential(team.instance, team.owner, credential.id, {"command": "/bin/backup"})
    assert same.revision == changed.revision, "a host is not told what it knows"
    with pytest.raises(Refusal) as wrong:
        restricting.credential(team.instance, team.owner, credential.id, {"sources": ["10.0.0.1/8"]})
    assert (wrong.value.kind, wrong.value.field) == (Kind.INVALID, "restrictions")
    restricting.credential(team.instance, team.owner, credential.id, None)
    assert options(team) == [[]]
    for actor, number, kind in ((team.owner, 99999, Kind.MISSING), (team.member, credential.id, Kind.FORBIDDEN)):
        with pytest.raises(Refusal) as refused:
            restricting.credential(team.instance, actor, number, {})
        assert refused.value.kind is kind


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sources": ['1.2.3.4",command="x']}, "A source is"),
        ({"sources": ["10.0.0.1/8"]}, "network is not valid"),
        ({"command": "a\nssh-ed25519 AAAA"}, "The command contains"),
        ({"command": ""}, "empty"),
        ({"environment": "A=b"}, "unknown restriction"),
        ({"restrict": "yes"}, "must be true or false"),
        ({"permitopen": ["localhost"]}, "host:port"),
        ({"permitopen": [f"h{number}:1" for number in range(33)]}, "at most 32 options"),
        ({"permitlisten": [f"{number}" for number in range(1, 33)], "restrict": True, "port_forwarding": True}, "32"),
        ({"sources": [f"{'x' * 90}{number}" for number in range(100)]}, "at most 8192 characters"),
        ({"permitopen": ["a:1"], "restrict": True}, "set port_forwarding to true"),
        ({"permitlisten": ["8080"], "port_forwarding": False}, "set port_forwarding to true"),
        ({"verify_required": True}, "security key"),
        ({"no_touch_required": True}, "security key"),
        (["restrict"], "must be an object"),
    ],
)
def test_a_wrong_restriction_is_refused_with_words(team: Team, wrong: Any, words: str) -> None:
    with pytest.raises(Refusal, match=words) as refused:
        add(team, "a", fresh_line(), restrictions=wrong)
    assert (refused.value.kind, refused.value.field) == (Kind.INVALID, "restrictions")
    assert lines(team) == []


def test_a_place_that_is_named_twice_stands_once_in_the_line(team: Team) -> None:
    """A host refuses a whole document in which an option comes twice."""
    add(team, "a", fresh_line(), restrictions={"permitopen": ["a:1", "a:1", "b:2"], "permitlisten": ["80", "80"]})
    assert options(team) == [['permitopen="a:1"', 'permitopen="b:2"', 'permitlisten="80"']]


@pytest.mark.parametrize("wrong", [{"command": "a\nb"}, {"sources": ["!10.0.0.1"]}, {"no-pty": True}])
def test_a_wrong_restriction_of_a_grant_is_refused(team: Team, wrong: Any) -> None:
    with pytest.raises(Refusal) as refused:
        give(team, restrictions=wrong)
    assert (refused.value.kind, refused.value.field) == (Kind.INVALID, "restrictions")


def test_a_grant_for_security_keys_lets_in_no_other_key(team: Team) -> None:
    user_keys.add(team.instance, team.member, title="plain", public_key=fresh_line())
    user_keys.add(team.instance, team.member, title="token", public_key=SECURITY_KEY)
    give(team, restrictions={"verify_required": True})
    assert [(line["key"], line["options"]) for line in lines(team)] == [(SECURITY_KEY, ["verify-required"])]


def test_a_line_without_options_and_end_replaces_the_others(team: Team) -> None:
    line = fresh_line()
    add(team, "narrow", line, restrictions={"command": "uptime"})
    add(team, "short", line, restrictions={"restrict": True}, expires_at=team.instance.now() + timedelta(hours=1))
    assert len(lines(team)) == 2
    free = add(team, "free", line)
    assert options(team) == [[]]
    credentials.delete(team.instance, team.owner, team.server.id, free.id)
    assert len(lines(team)) == 2


def test_a_restricted_line_that_lasts_longer_stays_below_the_free_one(team: Team) -> None:
    line = fresh_line()
    add(team, "narrow", line, restrictions={"command": "uptime"})
    add(team, "free", line, expires_at=team.instance.now() + timedelta(hours=1))
    assert options(team) == [[], ['command="uptime"']]


def test_lines_stand_from_wide_to_narrow(team: Team) -> None:
    line = fresh_line()
    for number, limits in enumerate(
        (
            {"command": "uptime"},
            {"command": "uptime", "sources": ["10.0.0.0/8"]},
            {"restrict": True},
            {"restrict": True, "permit_pty": True},
            {"sources": ["10.0.0.0/8"]},
            {"agent_forwarding": False},
        )
    ):
        add(team, str(number), line, restrictions=limits)
    assert options(team) == [
        ['from="10.0.0.0/8"'],
        ["no-agent-forwarding"],
        ["restrict", "pty"],
        ["restrict"],
        ['from="10.0.0.0/8"', 'command="uptime"'],
        ['command="uptime"'],
    ]
    assert {entry["key"] for entry in lines(team)} == {parse(line).canonical}


def test_the_event_of_a_changed_restriction_has_the_new_and_the_old_one(team: Team) -> None:
    made = add(team, "bot", fresh_line(), restrictions={"sources": ["192.0.2.0/24"], "command": "/bin/backup"})
    restricting.credential(team.instance, team.owner, made.id, {"sources": ["192.0.2.0/25"]})
    changed, added = events.find(team.instance, team.owner, limit=2).items
    assert added.summary.endswith(', restricted to from="192.0.2.0/24",command="/bin/backup"')
    assert 'to from="192.0.2.0/25" (it was restricted to from="192.0.2.0/24",command="/bin/backup")' in changed.summary
    assert added.details["restrictions"] == changed.details["restrictions_before"]
    assert changed.details["restrictions"] == {"sources": ["192.0.2.0/25"]}


@pytest.mark.parametrize("place", [{"permitopen": ["db:5432"]}, {"permitlisten": ["8080"]}])
def test_naming_ports_to_forward_allows_forwarding_to_them(place: dict[str, Any]) -> None:
    nothing = {"restrict": True, **place}
    assert restricting.with_named_places(nothing) == {**nothing, "port_forwarding": True}
    with pytest.raises(Refusal):  # what programs send is taken as sshd reads it
        validation.restrictions(nothing)
    assert validation.restrictions(restricting.with_named_places(nothing))["port_forwarding"] is True
    for restrictions in ({**nothing, "port_forwarding": False}, place, {"restrict": True}):
        assert restricting.with_named_places(restrictions) == restrictions
