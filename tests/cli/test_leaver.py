"""`keyrack leaver`: what a dry run shows, how it ends when a host has not obeyed, and undoing it."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from keyrack.cli.main import main
from keyrack.core.hosts import documents, enrolment, reports, servers
from keyrack.core.keys import grants
from keyrack.core.people import actors
from tests.core.keys_for_tests import fresh_line
from tests.services import Service


def run(team: Service, *words: str) -> Result:
    """Run `keyrack leaver` on the service's data."""
    settings = team.instance.settings
    where = ("--data", str(settings.data), "--database", settings.database_url)
    return CliRunner().invoke(main, ["leaver", *words, *where, "--workspace", "acme"])


def test_a_leaver_from_the_command_line(team: Service) -> None:
    instance, actor = team.instance, actors.system_actor(1)
    enrolled = enrolment.enrol(instance, servers.invite(instance, actor, 1), {}, address="192.0.2.10").server
    added = team.call("POST", "/v4/user/keys", headers={"X-Auth-Token": "token-of-alice"}, json={"key": fresh_line()})
    assert added.status_code == 201
    grants.give_named(instance, actor, user="alice", server="web-1", system_user="deploy")

    seen = run(team, "alice", "--dry-run", "--json")
    assert seen.exit_code == 0, seen.output
    going: dict[str, Any] = json.loads(seen.stdout)
    assert (going["user"], going["preview"], len(going["gone"]["keys"])) == ("alice", True, 1)
    assert "would lose 1 SSH key, 1 grant and 1 token" in run(team, "alice", "--dry-run").output
    assert run(team, "list").output.splitlines() == ["ID  USER  AT  BY  UNDONE  UNDO UNTIL  STATE"]

    late = run(team, "alice", "--wait", "--timeout", "0")
    assert late.exit_code == 3, late.output
    assert "not yet on web-1" in late.output
    signed = documents.signed(instance, 1)
    assert signed is not None
    reports.ingest(instance, enrolled, {"revision": signed.revision, "state": "applied"})
    done = run(team, "alice", "--wait", "--json")
    assert done.exit_code == 0, done.output
    receipt = json.loads(done.stdout)
    assert (receipt["id"], receipt["done"], [one["name"] for one in receipt["receipts"]]) == (1, True, ["web-1"])

    assert run(team, "olga").exit_code == 1
    assert "last owner" in run(team, "olga").output
    assert run(team, "nobody").exit_code == 1
    assert run(team, "alice", "--timeout", "soon").exit_code == 2
    assert "alice is back with 1 SSH key" in run(team, "undo", "1").output
    named = run(team, "undo", "alice")
    assert (named.exit_code, "'alice' is no id: a whole number" in named.output) == (2, True)
    again = run(team, "undo", "1")
    assert (again.exit_code, "undone already" in again.output) == (1, True)
