"""The service's background check of all rows, and the alarms of a workspace."""

from __future__ import annotations

from keyrack.core.audit import events
from keyrack.core.instance import Instance
from keyrack.core.missing_rows import MissingRows
from tests.core.conftest import Team


def check_all_rows(instance: Instance) -> None:
    """Check all rows once, as the service's thread for this does."""
    clock = iter(range(0, 10**9, 1000))
    check = MissingRows(lambda: next(clock))
    while not check.go_on(instance):
        pass


def alarms(team: Team) -> list[str]:
    """The alarms in the audit log of its owner."""
    found = events.find(team.instance, team.owner, limit=100).items
    return [event.summary for event in found if event.level == "alarm"]
