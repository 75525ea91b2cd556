"""What the service's own look finds without anybody asking, and the alarms of a workspace."""

from __future__ import annotations

from keyrack.core.audit import events
from keyrack.core.instance import Instance
from keyrack.core.missing_rows import MissingRows
from tests.core.conftest import Team


def look_through(instance: Instance) -> None:
    """As the thread does that the service has for it."""
    clock = iter(range(0, 10**9, 1000))
    look = MissingRows(lambda: next(clock))
    while not look.go_on(instance):
        pass


def alarms(team: Team) -> list[str]:
    """What its owner's log says, of alarms."""
    found = events.find(team.instance, team.owner, limit=100).items
    return [event.summary for event in found if event.level == "alarm"]
