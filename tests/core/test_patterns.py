"""Patterns over actions: what they match, how long it takes at worst, and how much of them may be kept."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyrack import policy
from keyrack.core.audit import webhooks
from keyrack.core.instance import Instance
from keyrack.core.people import access_keys, api_tokens, tokens, users
from keyrack.core.workspace import apply as workspace_apply
from keyrack.errors import Kind, Refusal
from keyrack.model import Role
from keyrack.store.people import users as user_rows
from tests.core.conftest import Team

WORST = ("*" * 40 + "Z", "*a" * 120 + "Z", "*" + "ser" * 80 + "*Z", "*:" * 128, "s*" * 128, "*e*" * 80 + "q")
LONG = "codeartsrepo:repository:getRepository" * 20
UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # machines are busy


@UNTIMED
@given(st.text("ab:*", max_size=12), st.text("ab:", max_size=12))
def test_a_pattern_means_what_its_stars_mean(pattern: str, action: str) -> None:
    wanted = re.fullmatch(re.sub(r"\*+", ".*", pattern), action) is not None
    assert policy.matches(pattern, action) is wanted


@pytest.mark.parametrize("pattern", WORST)
def test_the_worst_pattern_is_answered_at_once(pattern: str) -> None:
    # A backtracking engine is at it for longer than anybody waits.
    assert not policy.matches(pattern, LONG)


@UNTIMED
@given(st.lists(st.text("ab*", min_size=1, max_size=6), max_size=5), st.text("ab", max_size=8))
def test_shortened_patterns_match_the_same_actions(values: list[str], action: str) -> None:
    kept = policy.patterns(values, field="policies")
    assert all("**" not in pattern for pattern in kept)
    before = any(policy.matches(value, action) for value in values)
    assert any(policy.matches(pattern, action) for pattern in kept) is before


BAD = {
    "long": ["a" * 257],
    "many": [f"servers:{number}" for number in range(101)],
    "empty": [""],
    "blank": ["servers: read"],
    "not ASCII": ["sérvers:read"],
    "control": ["servers:\x1b[2J"],
}


@pytest.mark.parametrize("values", BAD.values(), ids=BAD)
def test_too_many_or_too_long_patterns_are_refused_by_every_way_in(team: Team, values: list[str]) -> None:
    instance, owner = team.instance, team.owner
    with pytest.raises(Refusal):
        users.create_user(instance, owner, name="x", role=Role.MEMBER, policies=values)
    with pytest.raises(Refusal):
        users.change_rights(instance, owner, team.member_user.id, role=Role.MEMBER, policies=values)
    with pytest.raises(Refusal):
        tokens.create(instance, owner, team.member_user, name="x", scopes=values)
    with pytest.raises(Refusal):
        access_keys.issue_temporary(instance, team.member, scopes=tuple(values))
    text = '[workspace]\nname = "acme"\n[[users]]\nname = "eve"\npolicies = ' + repr(values).replace("'", '"')
    with pytest.raises(Refusal):
        workspace_apply.apply(instance, text, {})
    assert [user.name for user in users.find(instance, owner)] == ["olga", "alice"]


def test_a_pattern_that_matches_no_action_is_refused_with_the_nearest_one(team: Team) -> None:
    """A misspelt policy or scope gives nothing, and whoever wrote it believes that it does."""
    instance, owner, alice = team.instance, team.owner, team.member_user
    text = '[workspace]\nname = "acme"\n[[users]]\nname = "%s"\n%s\n'
    token = 'tokens = [{ name = "ci", token = "a-token-of-alice", scopes = ["server:read"] }]'
    calls: tuple[Callable[[], object], ...] = (
        lambda: users.create_user(instance, owner, name="x", role=Role.MEMBER, policies=["server:read"]),
        lambda: users.change_rights(instance, owner, alice.id, role=Role.MEMBER, policies=["server:read"]),
        lambda: tokens.create(instance, owner, alice, name="x", scopes=["server:read"]),
        lambda: api_tokens.make(instance, owner, name="x", scopes=["server:read"]),
        lambda: workspace_apply.apply(instance, text % ("alice", 'policies = ["server:read"]'), {}, dry_run=True),
        lambda: workspace_apply.apply(instance, text % ("eve", 'policies = ["server:read"]'), {}, dry_run=True),
        lambda: workspace_apply.apply(instance, text % ("alice", token), {}),
        lambda: webhooks.create(instance, owner, url="https://alerts.example.org/", actions=["server:read"]),
    )
    for call in calls:
        with pytest.raises(Refusal, match="server:read fits no action; the nearest are servers:read") as refused:
            call()
        assert refused.value.kind is Kind.INVALID
    webhooks.create(instance, owner, url="https://alerts.example.org/", actions=["sessions:login", "git:*"])
    with pytest.raises(Refusal, match="nonsense fits no action; there are servers:read, servers:write"):
        users.change_rights(instance, owner, alice.id, role=Role.MEMBER, policies=["servers:read", "nonsense"])
    # What the vendor's policies name may stand, also for calls and services that are not here.
    taken = ("*", "*:read", "codeartsrepo::*", "codeartsrepo:group:getGroup", "obs:bucket:ListBucket")
    assert users.change_rights(instance, owner, alice.id, role=Role.MEMBER, policies=taken).policies == taken
    with pytest.raises(Refusal, match="codeartsrepo::createUserSSHKey fits no action; the nearest are codeartsrepo::c"):
        users.change_rights(instance, owner, alice.id, role=Role.MEMBER, policies=["codeartsrepo::createUserSSHKey"])


def test_a_stored_pattern_that_matches_nothing_prevents_no_change_of_its_user(team: Team) -> None:
    instance, owner, alice = team.instance, team.owner, team.member_user
    instance.database.write(lambda c: user_rows.change_user(c, alice.id, {"policies": ["nonsense"]}))
    made = users.change_rights(instance, owner, alice.id, role=Role.AUDITOR, policies=["nonsense", "git:fetch"])
    assert made.policies == ("nonsense", "git:fetch")
    text = '[workspace]\nname = "acme"\n[[users]]\nname = "alice"\npolicies = ["nonsense"]\n'
    workspace_apply.apply(instance, text, {})
    with pytest.raises(Refusal, match="nonsens fits no action"):
        users.change_rights(instance, owner, alice.id, role=Role.MEMBER, policies=["nonsense", "nonsens"])


def test_temporary_keys_of_one_user_are_bounded(
    instance: Instance, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_keys, "MAX_TEMPORARY", 3)
    for _ in range(3):
        access_keys.issue_temporary(team.instance, team.member)
    with pytest.raises(Refusal, match="3 temporary access keys"):
        access_keys.issue_temporary(team.instance, team.member)


def test_tokens_of_one_user_are_bounded(instance: Instance, team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_SIGNED_IN", 2)
    who = tokens.SignIn(password="alice's password", user_name="alice", workspace_name="acme")
    for _ in range(2):
        tokens.sign_in(instance, who, tokens.Scope(), address="203.0.113.9")
    with pytest.raises(Refusal, match="2 tokens"):
        tokens.sign_in(instance, who, tokens.Scope(), address="203.0.113.9")
