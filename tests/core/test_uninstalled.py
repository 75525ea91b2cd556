"""A host from which the agent was taken off is shown as that, and as nothing else, until it is enrolled anew."""

from __future__ import annotations

from datetime import timedelta

from keyrack.core.hosts import enrolment, modes, reports
from keyrack.core.hosts import servers as own_servers
from keyrack.core.hosts.status import HostStatus, of
from keyrack.store.hosts import servers
from tests.core.conftest import Team
from tests.core.test_report_events import log
from tests.core.test_unmanaged_keys import here


def held(team: Team) -> HostStatus:
    """How the team's server is held now."""
    return of(team.instance, here(team))


def enrol(team: Team) -> None:
    """Make a host of it."""
    token = own_servers.invite(team.instance, team.owner, team.server.id)
    enrolment.enrol(team.instance, token, {"mode": "enforce"}, address="192.0.2.1")


def test_an_uninstalled_host_is_not_shown_as_enforcing(team: Team) -> None:
    enrol(team)
    modes.set_mode(team.instance, team.owner, team.server.id, "enforce")
    signed = {"revision": here(team).revision, "state": "applied", "problems": ["a key opens nothing"]}
    reports.ingest(team.instance, here(team), {**signed, "facts": {"enforcement": "enforce"}})
    assert held(team).state == "enforcing"
    reports.ingest(team.instance, here(team), {"facts": {"enforcement": "uninstalled"}, "problems": []})
    assert (held(team).state, held(team).enforcement, held(team).problems) == ("uninstalled", "uninstalled", ())
    assert "The agent was taken off host web-1" in log(team)[0]
    # It is not only silent: that it may come back nobody need wait for.
    long_ago = team.instance.now() - timedelta(days=1)
    team.instance.database.write(lambda connection: servers.change(connection, team.server.id, {"seen_at": long_ago}))
    assert held(team).state == "uninstalled"
    enrol(team)
    assert (held(team).state, held(team).enforcement) != ("uninstalled", "uninstalled")
    assert held(team).enforcement == ""
