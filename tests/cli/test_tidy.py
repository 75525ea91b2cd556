"""`keyrack tidy` as an operator uses it: it shows first, and deletes when it is asked to."""

from __future__ import annotations

from datetime import timedelta

from click.testing import CliRunner
from sqlalchemy import update

from keyrack.cli.main import main
from keyrack.store import tables
from tests.services import Service


def run(team: Service, *words: str) -> str:
    """What `keyrack tidy …` prints beside the service."""
    ended = CliRunner().invoke(main, ["tidy", *words, "--data", str(team.instance.settings.data)])
    assert ended.exit_code == 0, ended.output
    # The service that is served beside it logs into the same: that somebody changed its events, as is done below.
    return "".join(line for line in ended.stdout.splitlines(keepends=True) if "[error" not in line)


def test_tidy_shows_first_and_then_deletes(team: Service) -> None:
    long_ago = team.instance.now() - timedelta(days=2000)
    team.instance.database.write(lambda connection: connection.execute(update(tables.events).values(at=long_ago)))
    shown = run(team)
    assert "Nothing was deleted" in shown
    (line,) = [line for line in shown.splitlines() if " events," in line]
    count = int(line.split()[0])
    assert count > 0
    assert run(team) == shown
    assert f"Deleted {count}." in run(team, "--apply")
    assert "        0  events" in run(team)
