"""Keys that a host found: matched to people, accepted with their limits, ignored, removed; and what a host may tell."""

from __future__ import annotations

import json
from typing import Any

import pytest

from keyrack.core.audit import events
from keyrack.core.hosts import documents, enrolment, modes, reports, servers, unmanaged_keys
from keyrack.core.hosts.servers import invite
from keyrack.core.keys import user_keys
from keyrack.errors import Kind, Refusal
from keyrack.model import EventFilter, Server, UnmanagedKey
from keyrack.protocol import host_document
from keyrack.ssh.public_key import parse
from tests.core.conftest import Team, make_team
from tests.core.keys_for_tests import fresh_line


def entry(text: str, **more: Any) -> dict[str, Any]:
    """What an agent tells of one key in deploy's file."""
    key = parse(text)
    return {
        "username": "deploy",
        "path": "/home/deploy/.ssh/authorized_keys",
        "kind": "key",
        "line": 1,
        "type": key.type,
        "fingerprint": key.fingerprint,
        "key": key.canonical,
        "options": "",
        "comment": key.comment,
        "problem": "",
        "in_force": True,
        "something_newer": 1,
        **more,
    }


def tell(team: Team, *found: dict[str, Any], **more: Any) -> None:
    """Report as the server's agent."""
    fields = {"revision": 1, "state": "applied", "keys_found": list(found), **more}
    reports.ingest(team.instance, here(team), fields)


def here(team: Team) -> Server:
    """The server as it is now."""
    return servers.get(team.instance, team.owner, team.server.id)


def known(team: Team) -> list[UnmanagedKey]:
    """What the workspace sees."""
    return list(unmanaged_keys.find(team.instance, team.owner, team.server.id, limit=5000).items)


def event_summaries(team: Team) -> list[str]:
    """The server's events, newest first."""
    return [
        event.summary
        for event in events.find(team.instance, team.owner, EventFilter(server_id=team.server.id), limit=100).items
    ]


def document(team: Team) -> dict[str, Any]:
    """The server's document as it is now."""
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    found: dict[str, Any] = json.loads(signed.text)
    return found


def test_a_found_key_names_its_person(team: Team) -> None:
    line = fresh_line("authorizer")
    user_keys.add(team.instance, team.member, title="authorizer", public_key=line)
    tell(team, entry(line), entry(fresh_line("a stranger's")))
    assert {(one.comment, one.owner) for one in known(team)} == {("authorizer", "alice"), ("a stranger's", None)}
    other = make_team(team.instance, "umbrella")
    with pytest.raises(Refusal) as refused:
        unmanaged_keys.find(team.instance, other.owner, team.server.id)
    assert refused.value.kind is Kind.MISSING
    with pytest.raises(Refusal) as refused:
        unmanaged_keys.accept(team.instance, other.owner, other.server.id, known(team)[0].id)
    assert refused.value.kind is Kind.MISSING


def test_a_state_that_there_is_not_is_refused(team: Team) -> None:
    with pytest.raises(Refusal) as refused:
        unmanaged_keys.find(team.instance, team.owner, team.server.id, states=("new", "lost"))
    assert (refused.value.kind, refused.value.field) == (Kind.INVALID, "state")


def test_an_accepted_key_keeps_its_limits_and_its_end(team: Team) -> None:
    options = 'from="10.0.0.0/8",command="echo \\"a, b\\"",no-pty,expiry-time="20301231235959Z"'
    line = fresh_line("laptop")
    tell(team, entry(line, options=options))
    credential = unmanaged_keys.accept(team.instance, team.owner, team.server.id, known(team)[0].id)
    assert (credential.label, credential.username) == ("laptop", "deploy")
    key = document(team)["users"]["deploy"][0]
    assert key["key"] == parse(line).canonical
    assert key["options"] == ['from="10.0.0.0/8"', 'command="echo \\"a, b\\""', "no-pty"]
    assert key["expires_at"] == "2030-12-31T23:59:59Z"
    assert [(one.state, one.credential_id) for one in known(team)] == [(unmanaged_keys.ACCEPTED, credential.id)]


@pytest.mark.parametrize(
    "options", ['environment="A=b"', 'tunnel="1"', "cert-authority", 'expiry-time="20991231"', 'principals="x"']
)
def test_a_key_with_an_option_that_cannot_be_kept_is_not_accepted_in_silence(team: Team, options: str) -> None:
    tell(team, entry(fresh_line(), options=options))
    with pytest.raises(Refusal) as refused:
        unmanaged_keys.accept(team.instance, team.owner, team.server.id, known(team)[0].id)
    assert refused.value.code == "options-not-kept"
    assert document(team)["users"] == {}


def test_removing_is_ordered_until_the_host_finds_it_no_more(team: Team) -> None:
    rogue, other = entry(fresh_line("rogue")), entry(fresh_line("other"), line=2)
    tell(team, rogue, other)
    before = here(team).revision
    found = next(one for one in known(team) if one.comment == "rogue")
    unmanaged_keys.remove(team.instance, team.owner, team.server.id, found.id)
    assert here(team).revision > before
    assert document(team)["take_away"] == [{"path": rogue["path"], "fingerprint": rogue["fingerprint"]}]
    tell(team, rogue, other)
    assert "take_away" in document(team)
    tell(team, other)
    assert "take_away" not in document(team)
    assert [one.comment for one in known(team)] == ["other"]
    assert any("was taken out of" in summary for summary in event_summaries(team))
    tell(team, rogue, other)
    assert any(summary.startswith("Found by hand on web-1") for summary in event_summaries(team))


def test_an_ignored_key_stays_ignored(team: Team) -> None:
    found = entry(fresh_line("old robot"))
    tell(team, found)
    unmanaged_keys.ignore(team.instance, team.owner, team.server.id, known(team)[0].id)
    tell(team, found)
    assert [one.state for one in known(team)] == [unmanaged_keys.IGNORED]


def test_a_report_without_found_keys_says_nothing_about_them(team: Team) -> None:
    tell(team, entry(fresh_line("one")))
    reports.ingest(team.instance, here(team), {"revision": 1, "state": "applied"})
    assert len(known(team)) == 1


def test_entries_that_no_agent_would_report_are_left_out(team: Team) -> None:
    good = entry(fresh_line("good"))
    bad: list[Any] = [
        {**good, "path": "relative"},
        {**good, "path": ""},
        {**good, "kind": "rumour"},
        {**good, "options": "x" * 3000},
        {**good, "fingerprint": "MD5:12"},
        {**good, "line": "1"},
        "text",
        None,
    ]
    tell(team, *bad, good, good)
    assert [one.comment for one in known(team)] == ["good"]


@pytest.mark.parametrize("word", ["adopt", "observe"])
def test_an_enrolling_host_says_that_it_observes(team: Team, word: str) -> None:
    token = invite(team.instance, team.owner, team.server.id)
    assert here(team).mode == "enforce"
    enrolment.enrol(team.instance, token, {"hostname": "h", "mode": word}, address="192.0.2.1")
    assert here(team).mode == "observe"
    assert document(team)["mode"] == "adopt"
    modes.set_mode(team.instance, team.owner, team.server.id, "enforce")
    assert document(team)["mode"] == "enforce"
    with pytest.raises(Refusal) as refused:
        modes.set_mode(team.instance, team.owner, team.server.id, "perhaps")
    assert refused.value.field == "mode"
    with pytest.raises(Refusal) as refused:
        modes.set_mode(team.instance, team.member, team.server.id, "observe")
    assert refused.value.kind is Kind.FORBIDDEN


@pytest.mark.parametrize("word", ["adopt", "observe"])
def test_a_host_says_that_it_observes(team: Team, word: str) -> None:
    tell(team, facts={"enforcement": "enforce"})
    tell(team, facts={"enforcement": word})
    assert here(team).facts["enforcement"] == "observe"
    assert "no longer enforces" in event_summaries(team)[0]


def test_a_host_that_undid_enforcing_observes_again(team: Team) -> None:
    before = here(team).revision
    tell(team, facts={"enforcement": "undone", "undone": "sshd greets nobody any more"})
    assert here(team).mode == "observe"
    assert here(team).revision > before
    assert "sshd greets nobody any more" in event_summaries(team)[0]


def test_facts_are_kept_as_far_as_they_are_well_formed(team: Team) -> None:
    key = fresh_line("deploy")
    facts = {
        "sshd": {"PasswordAuthentication": "no", "bad keyword": "x", "UseDNS": 1},
        "accounts": {"deploy": {"exists": True, "deployment_key": key}, "../x": {"exists": True}},
        "newer": {"a": 1},
    }
    tell(team, facts=facts, problems=["this host does not let the service create accounts"])
    kept = here(team).facts
    assert kept["sshd"] == {"PasswordAuthentication": "no"}
    assert kept["accounts"] == {"deploy": {"exists": True}}
    assert "newer" not in kept
    assert "this host does not let" in event_summaries(team)[0]
    count = len(event_summaries(team))
    tell(team, facts=facts, problems=["this host does not let the service create accounts"])
    assert len(event_summaries(team)) == count, "the same words were logged twice"


def test_staleness_is_set_for_a_server_or_a_tag(team: Team) -> None:
    second = servers.create(team.instance, team.owner, name="web-2", address="192.0.2.11", tags=("web",))
    set_to = {"after_seconds": 3600, "then": "drop-temporary"}
    modes.set_offline_policy(team.instance, team.owner, tag="web", after_seconds=3600, then="drop-temporary")
    assert document(team)["stale"] == set_to
    modes.set_offline_policy(team.instance, team.owner, server_id=second.id, after_seconds=0, then="keep")
    assert document(team)["stale"] == set_to
    for seconds, then in ((5, "keep"), (3600, "explode")):
        with pytest.raises(Refusal) as refused:
            modes.set_offline_policy(team.instance, team.owner, server_id=second.id, after_seconds=seconds, then=then)
        assert refused.value.kind is Kind.INVALID


def test_a_fingerprint_is_never_believed(team: Team) -> None:
    """Whoever says that a stranger's key has alice's fingerprint makes it neither hers nor acceptable as hers."""
    hers, strangers = fresh_line("hers"), fresh_line("stranger's")
    user_keys.add(team.instance, team.member, title="authorizer", public_key=hers)
    tell(team, entry(strangers, fingerprint=parse(hers).fingerprint), entry(hers, fingerprint="", line=2))
    assert {(one.fingerprint, one.owner) for one in known(team)} == {
        (parse(strangers).fingerprint, None),
        (parse(hers).fingerprint, "alice"),
    }
    other = entry(fresh_line("other"))
    tell(team, {**other, "key": "", "path": "/empty"}, {**other, "key": "ssh-ed25519 !", "path": "/no-base64"})
    assert known(team) == []


@pytest.mark.parametrize(
    "options",
    [
        'from="10.0.0.0/8",from="0.0.0.0/0"',
        'command="a",command="b"',
        'FROM="10.0.0.0/8",from="*"',
        'from="10.0.0.0/8,"',
        'from="10.0.0.1, 10.0.0.0/8"',
        'permitopen="a"',
        "unknown",
        'expiry-time="soon"',
        "pty pty",
        "pty," * 500,
        ",".join(f'permitopen="a:{number}"' for number in range(1, 34)),
        "verify-required",
        'command="\ufffd"',
    ],
)
def test_a_line_that_sshd_refuses_or_that_is_not_known_whole_is_not_accepted(team: Team, options: str) -> None:
    tell(team, entry(fresh_line(), options=options))
    with pytest.raises(Refusal) as refused:
        unmanaged_keys.accept(team.instance, team.owner, team.server.id, known(team)[0].id)
    assert refused.value.code == "options-not-kept"


def test_an_option_that_a_later_one_takes_back_stays_taken_back(team: Team) -> None:
    tell(team, entry(fresh_line(), options="pty,port-forwarding,restrict,no-pty,Port-Forwarding,no-verify-required"))
    unmanaged_keys.accept(team.instance, team.owner, team.server.id, known(team)[0].id)
    assert document(team)["users"]["deploy"][0]["options"] == ["restrict", "no-pty", "port-forwarding"]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ('permitopen="a:1",permitopen="a:1"', ['permitopen="a:1"']),
        ('permitlisten="80",PERMITLISTEN="80",permitlisten="b:80"', ['permitlisten="80"', 'permitlisten="b:80"']),
        ('restrict,permitopen="a:1"', ["restrict"]),
        ('permitopen="a:1",no-port-forwarding', ["no-port-forwarding"]),
        ('restrict,permitopen="a:1",port-forwarding', ["restrict", "port-forwarding", 'permitopen="a:1"']),
    ],
)
def test_an_accepted_key_shows_what_sshd_enforces_and_its_host_applies_the_document(
    team: Team, options: str, kept: list[str]
) -> None:
    tell(team, entry(fresh_line(), options=options))
    unmanaged_keys.accept(team.instance, team.owner, team.server.id, known(team)[0].id)
    assert document(team)["users"]["deploy"][0]["options"] == kept
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    host_document.decode(signed.text)


@pytest.mark.parametrize("end", ["20301231235959z", "20301231235959UTC", "20301231235959utc"])
def test_an_end_in_utc_is_kept_however_it_is_spelled(team: Team, end: str) -> None:
    tell(team, entry(fresh_line(), options=f'expiry-time="{end}"'))
    unmanaged_keys.accept(team.instance, team.owner, team.server.id, known(team)[0].id)
    assert document(team)["users"]["deploy"][0]["expires_at"] == "2030-12-31T23:59:59Z"


HERE = {"username": "deploy", "path": "/home/deploy/.ssh/authorized_keys"}
UNREADABLE = {**HERE, "kind": "unreadable", "problem": "Permission denied"}


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"keys_cut": [HERE]}, []),
        ({"keys_cut": [{**HERE, "path": ""}]}, []),
        ({"keys_cut": [{**HERE, "username": ""}]}, []),
        ({"keys_cut": [{"username": "", "path": ""}]}, []),
        ({"keys_cut": ["what"]}, []),
        ({"keys_cut": {}}, []),
        ({"keys_cut": [{"username": f"a{number}", "path": "/x"} for number in range(5_100)]}, []),
        ({"keys_cut": []}, [UNREADABLE]),
        ({}, [UNREADABLE]),
        ({"keys_cut": []}, [{**HERE, "kind": "key", "comment": "x" * 201}]),
        ({}, 1500),
    ],
)
def test_an_incomplete_scan_marks_no_key_as_gone(team: Team, more: dict[str, Any], found: list[Any] | int) -> None:
    if isinstance(found, int):  # so many keys are not made where tests are only collected
        found = [entry(fresh_line(), path=f"/{number}") for number in range(found)]
    rogue, ignored = entry(fresh_line("rogue")), entry(fresh_line("ignored"), line=2)
    tell(team, rogue, ignored, keys_cut=[])
    for one in known(team):
        act = unmanaged_keys.remove if one.comment == "rogue" else unmanaged_keys.ignore
        act(team.instance, team.owner, team.server.id, one.id)
    tell(team, *found, **more)
    states = {one.comment: one.state for one in known(team) if one.path == HERE["path"]}
    assert (states["rogue"], states["ignored"]) == (unmanaged_keys.REMOVING, unmanaged_keys.IGNORED)
    assert "take_away" in document(team)
    assert not any("was taken out of" in summary for summary in event_summaries(team))
    tell(team, keys_cut=[{**HERE, "username": "another"}, {**HERE, "path": "/another"}])
    assert "take_away" not in document(team)
    assert any("was taken out of" in summary for summary in event_summaries(team))


def test_the_first_unmanaged_key_of_a_host_is_named(team: Team) -> None:
    tell(team)
    by_hand = entry(fresh_line("by_hand"), username="root", path="/root/.ssh/authorized_keys")
    tell(team, by_hand)
    (found,) = (summary for summary in event_summaries(team) if summary.startswith("Found"))
    for part in (by_hand["fingerprint"], "root", by_hand["path"]):
        assert part in found
    many = [entry(fresh_line(), path=f"/home/deploy/{number}", in_force=number % 2 == 1) for number in range(40)]
    tell(team, by_hand, *many)
    named = [summary for summary in event_summaries(team) if summary.startswith("Found by hand")]
    assert len(named) == 21
    assert "Found 20 more keys by hand on web-1, 0 of which let somebody in" in event_summaries(team)


def test_an_incomplete_scan_leaves_one_event(team: Team) -> None:
    words = "the look for keys was cut in 1 place, first /home/x/.ssh/authorized_keys of x: Permission denied"
    for _ in range(2):
        tell(team, facts={"scan": words})
    assert sum(words in summary for summary in event_summaries(team)) == 1
    assert here(team).facts["scan"] == words
    tell(team, facts={"scan": ""})
    assert "scan" not in here(team).facts
