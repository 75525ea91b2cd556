"""An event's seal holds for what the database gives back of it, whatever its details are made of."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection

from keyrack.store.audit import events
from keyrack.store.engine.prepared import prepared
from keyrack.store.sealing import event_seals
from keyrack.store.tables import events as table
from tests.core.conftest import Team


@prepared
def _newest(summary: str) -> Any:
    return table.select().where(table.c.summary == summary)


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"label": "laptop", "ends": None, "break_glass": False, "revisions": {"7": 12}},
        {2: "two", 10: "ten"},
        {"servers": (1, 2), "of": [{"deep": {3: "three", 20: "twenty"}}]},
        {"share": 0.1, "odd": "é\u2028\U0001f511"},
    ],
    ids=["none", "usual", "numbers-as-names", "deep", "floats-and-odd-text"],
)
def test_the_seal_of_an_event_holds_after_it_was_written_and_read(team: Team, details: dict[Any, Any]) -> None:
    summary = "An event of a test"

    def write(connection: Connection) -> None:
        events.add(
            connection,
            team.owner,
            at=team.instance.now(),
            action="test",
            outcome="done",
            reason="",
            target_kind="test",
            target_id=None,
            server_id=None,
            summary=summary,
            level="info",
            details=details,
        )

    team.instance.database.write(write)
    rows = team.instance.database.read(lambda connection: _newest.rows(connection, summary))
    assert len(rows) == 1
    assert team.instance.database.read(lambda connection: event_seals.holds(connection, rows[0], 0))
