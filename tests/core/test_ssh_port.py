"""The port that a host's sshd listens on: said by its host, named in the line to paste and in ssh's configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keyrack.core.hosts import host_keys, reports, servers, ssh_lines
from keyrack.core.keys import grants
from keyrack.core.keys.user_keys import add
from keyrack.model import Server
from tests.core.conftest import Team
from tests.core.keys_for_tests import fresh_line


def tell(team: Team, **fields: Any) -> Server:
    """What the host reports; the server after it."""
    reports.ingest(team.instance, servers.get(team.instance, team.owner, team.server.id), fields)
    return servers.get(team.instance, team.owner, team.server.id)


def configured(team: Team) -> int:
    """The port in the member's configuration of ssh."""
    grants.give(team.instance, team.owner, user_id=team.member_user.id, server_id=team.server.id, system_user="deploy")
    add(team.instance, team.member, title="laptop", public_key=fresh_line())
    return host_keys.reachable(team.instance, team.member)[0].port


def test_no_port_is_named_that_was_never_reported(team: Team) -> None:
    assert ssh_lines.line(team.server, "deploy") == "ssh deploy@192.0.2.10"
    assert ssh_lines.line(tell(team, facts={"ssh_port": 22}), "deploy") == "ssh deploy@192.0.2.10"


def test_the_ssh_line_and_configuration_have_the_port_that_the_host_reports(team: Team) -> None:
    server = tell(team, facts={"ssh_port": 2222})
    assert ssh_lines.line(server, "deploy") == "ssh -p 2222 deploy@192.0.2.10"
    assert configured(team) == 2222
    # A report that does not say it takes nothing back.
    assert ssh_lines.port(tell(team, facts={"enforcement": "enforce"})) == 2222
    assert ssh_lines.port(tell(team, facts={"ssh_port": 22})) == 22


def test_an_older_agent_reports_the_port_with_its_host_keys_alone(team: Team) -> None:
    server = tell(team, host_keys={"port": 2200, "keys": [fresh_line()]})
    assert ssh_lines.line(server, "deploy") == "ssh -p 2200 deploy@192.0.2.10"
    # A newer one's own word counts, in which order ever it asked its sshd.
    keys = {"port": 2201, "keys": [fresh_line()]}
    assert ssh_lines.port(tell(team, facts={"ssh_port": 2222}, host_keys=keys)) == 2222


def test_host_keys_that_an_admin_names_name_the_port_until_the_host_does(team: Team) -> None:
    host_keys.name_first(team.instance, team.owner, team.server.id, [(fresh_line(), 2022)])
    assert ssh_lines.port(servers.get(team.instance, team.owner, team.server.id)) == 2022
    assert configured(team) == 2022
    assert ssh_lines.port(tell(team, facts={"ssh_port": 2222})) == 2222


@pytest.mark.parametrize("said", [0, -1, 65_536, "2222; reboot", True, 22.5, None, [2222]])
def test_a_reported_port_that_is_none_is_ignored(team: Team, said: Any) -> None:
    assert ssh_lines.port(tell(team, facts={"ssh_port": said})) is None
    # Nor where others wrote it into the row.
    assert ssh_lines.line(replace(team.server, facts={"ssh_port": said}), "deploy") == "ssh deploy@192.0.2.10"
