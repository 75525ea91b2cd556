"""What sshd is asked for: only what was asked, with its way to the host and its entry in the log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields

import pytest

from keyrack.agent.sshd import drop_in
from keyrack.core.audit import events
from keyrack.core.hosts import documents, reports, servers, sshd_settings
from keyrack.core.keys import credentials
from keyrack.errors import Kind, Refusal
from keyrack.model import EventFilter
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line


def wanted(team: Team) -> Mapping[str, str]:
    """The sshd settings in the server's document as it is now."""
    signed = documents.signed(team.instance, team.server.id)
    assert signed is not None
    found: Mapping[str, str] = json.loads(signed.text)["sshd"]
    return found


def obey(team: Team) -> None:
    """The host says that it obeys what there is now."""
    now = servers.get(team.instance, team.owner, team.server.id)
    reports.ingest(team.instance, now, {"revision": now.revision, "state": "applied"})


def test_only_what_was_asked_is_in_the_document(team: Team) -> None:
    assert wanted(team) == {}
    assert sshd_settings.get(team.instance, team.owner, team.server.id).state == sshd_settings.UNMANAGED
    changed = sshd_settings.change(team.instance, team.owner, team.server.id, {"passwordless_login": True})
    assert wanted(team) == {"PasswordAuthentication": "no"}
    assert (changed.passwordless_login, changed.prevent_root_login, changed.use_dns) == (True, False, False)
    sshd_settings.change(team.instance, team.owner, team.server.id, {"prevent_root_login": True, "use_dns": True})
    assert wanted(team) == {"PasswordAuthentication": "no", "PermitRootLogin": "no", "UseDNS": "yes"}
    sshd_settings.change(team.instance, team.owner, team.server.id, {"prevent_root_login": False, "use_dns": False})
    assert wanted(team) == {"PasswordAuthentication": "no", "PermitRootLogin": "yes", "UseDNS": "no"}


def test_a_change_is_pending_until_the_host_obeys_and_repeating_it_changes_nothing(team: Team) -> None:
    def state() -> str:
        return sshd_settings.get(team.instance, team.owner, team.server.id).state

    sshd_settings.change(team.instance, team.owner, team.server.id, {"use_dns": True})
    assert state() == sshd_settings.PENDING
    obey(team)
    assert state() == sshd_settings.APPLIED
    revision = servers.get(team.instance, team.owner, team.server.id).revision
    sshd_settings.change(team.instance, team.owner, team.server.id, {"use_dns": True})
    assert (state(), servers.get(team.instance, team.owner, team.server.id).revision) == (
        sshd_settings.APPLIED,
        revision,
    )
    newest = events.find(team.instance, team.owner, EventFilter(server_id=team.server.id), limit=1).items[0]
    assert (newest.summary, newest.level) == ("Updated SSHD Config", "warning")
    # A key that comes later does not put the settings back on the way.
    credentials.add(team.instance, team.owner, team.server.id, label="x", username="deploy", public_key=fresh_line())
    assert state() == sshd_settings.APPLIED


def test_nothing_to_change_is_refused(team: Team) -> None:
    with pytest.raises(Refusal) as refused:
        sshd_settings.change(team.instance, team.owner, team.server.id, {})
    assert refused.value.kind is Kind.INVALID


def test_a_key_is_delivered_once_and_for_the_time_it_came(team: Team) -> None:
    def add(label: str) -> int:
        return credentials.add(
            team.instance, team.owner, team.server.id, label=label, username="deploy", public_key=fresh_line()
        ).id

    first = add("first")
    now = servers.get(team.instance, team.owner, team.server.id)
    second = add("second")
    # The host obeys a revision in between: the second key is still on its way.
    reports.ingest(team.instance, now, {"revision": now.revision, "state": "applied"})
    found = {key.id: key for key in credentials.find(team.instance, team.owner, team.server.id).items}
    assert (found[first].acknowledged, found[second].acknowledged) == (True, False)
    assert found[second].acknowledged_at is None
    since = found[first].acknowledged_at
    assert since is not None
    obey(team)
    found = {key.id: key for key in credentials.find(team.instance, team.owner, team.server.id).items}
    assert found[first].acknowledged_at == since
    assert found[second].acknowledged
    reports.ingest(team.instance, now, {"revision": now.revision + 5, "state": "refused", "problems": ["x"]})
    third = add("third")
    assert not credentials.get(team.instance, team.owner, team.server.id, third).acknowledged


def test_every_sshd_setting_is_set_by_agents_and_shown() -> None:
    shown = {field.name for field in fields(sshd_settings.SshSettings)}
    for name, known in sshd_settings.KEYWORDS.items():
        assert known.keyword in drop_in.SETTINGS, f"name {known.keyword} in SETTINGS of agent/sshd/drop_in.py"
        assert name in shown, f"SshSettings in core/hosts/sshd_settings.py lacks the field {name}"
