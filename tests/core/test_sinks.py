"""Events as lines of JSON: each at least once, also where the database or the note of how far it is went back."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from keyrack.core.audit.outgoing_events import LATE
from keyrack.core.audit.sinks import MAX_MARKS, Sinks
from keyrack.core.people import groups
from keyrack.store.audit import events
from keyrack.store.tables import events as event_rows
from tests.core.conftest import Team


class Lines:
    """A sink of lines beside a workspace."""

    def __init__(self, team: Team, folder: Path, later: timedelta) -> None:
        self.path = folder / "events.jsonl"
        settings = replace(team.instance.settings, event_lines=self.path)
        now = team.instance.now
        self.team = team
        self.sinks = Sinks(replace(team.instance, settings=settings, now=lambda: now() + later))
        self.sinks.hand_on()

    def make(self, *names: str) -> None:
        """A group each, of which an event tells."""
        for name in names:
            groups.put(self.team.instance, self.team.owner, name, [])

    def sent_groups(self) -> list[str]:
        """Of which groups the lines told, with what is new by now."""
        self.sinks.hand_on()
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        return [json.loads(line)["summary"].removeprefix("Made group ").partition(":")[0] for line in lines]


@pytest.fixture
def lines(team: Team, tmp_path: Path) -> Lines:
    """A sink that has begun, on a database that shows no event with a smaller id any more."""
    return Lines(team, tmp_path, 2 * LATE)


@pytest.fixture(params=[2 * LATE, timedelta()], ids=["settled", "at once"])
def new_or_settled(request: pytest.FixtureRequest, team: Team, tmp_path: Path) -> Lines:
    """The same, and one of which PostgreSQL may yet show events with smaller ids."""
    return Lines(team, tmp_path, request.param)


def go_back(team: Team, last: int) -> None:
    """Have the database as it was when `last` was its newest event; ids go on from there, as in a restored copy."""

    def write(connection: object) -> None:
        connection.execute(event_rows.delete().where(event_rows.c.id > last))  # type: ignore[attr-defined]
        if connection.dialect.name == "postgresql":  # type: ignore[attr-defined]
            statement = text("SELECT setval(pg_get_serial_sequence('events', 'id'), :last)")
        else:
            statement = text("UPDATE sqlite_sequence SET seq = :last WHERE name = 'events'")
        connection.execute(statement, {"last": last})  # type: ignore[attr-defined]

    team.instance.database.write(write)


@pytest.mark.parametrize("later", [["e", "f"], ["e", "f", "g", "h", "i"]], ids=["fewer ids than before", "more"])
def test_events_after_a_restore_are_sent(new_or_settled: Lines, later: list[str]) -> None:
    lines = new_or_settled
    lines.make("a")
    kept = lines.team.instance.database.read(events.newest_id)
    lines.sent_groups()
    lines.make("b", "c", "d")
    assert lines.sent_groups() == ["a", "b", "c", "d"]
    go_back(lines.team, kept)
    lines.make(*later)
    assert lines.sent_groups() == ["a", "b", "c", "d", *later]
    lines.make("z")
    assert lines.sent_groups() == ["a", "b", "c", "d", *later, "z"]


def test_a_damaged_note_sends_all_events_once_more(lines: Lines) -> None:
    lines.make("a", "b")
    assert lines.sent_groups() == ["a", "b"]
    (lines.team.instance.settings.data / "sinks.json").write_text('{"event_lines"')
    lines.make("c")
    assert lines.sent_groups()[-3:] == ["a", "b", "c"]
    before = len(lines.sent_groups())
    lines.make("d")
    assert (lines.sent_groups()[-1], len(lines.sent_groups())) == ("d", before + 1)


def test_the_note_of_sent_events_stays_short(lines: Lines) -> None:
    for number in range(2 * MAX_MARKS):
        lines.make(f"g{number}")
        lines.sent_groups()
    marks = json.loads((lines.team.instance.settings.data / "sinks.json").read_text("utf-8"))["event_lines"]
    assert len(marks) == MAX_MARKS
    newest = lines.team.instance.database.read(events.newest_id)
    # One is near, wherever the database may go back to: not further than twice as far.
    for back in (1, 5, 12, 2 * MAX_MARKS):
        assert any(newest - 2 * back <= number <= newest - back for number, _ in marks)
