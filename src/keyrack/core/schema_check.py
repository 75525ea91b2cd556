"""Checks whether others put a trigger, a rule or a view on Keyrack's tables, and raises an alarm; must change nothing.

With write access to the database alone, somebody can leave all rows as they are and have the database change what is
written. Nothing stops for it, as an operator may have a trigger of their own and name it in the settings.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import Connection

from keyrack.core.audit import alarms
from keyrack.core.instance import Instance
from keyrack.logs import logger
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.engine import catalogue

log = logger("keyrack")

PAUSE_SECONDS = 30.0
REASON = "tables-altered"


class SchemaCheck:
    """Checks every PAUSE_SECONDS; raises the same alarm at most once an hour."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock()
        self._reported: tuple[str, ...] = ()
        self._reported_at = float("-inf")

    def go_on(self, instance: Instance) -> None:
        """Check if it is time. Raises DatabaseUnavailable."""
        if (now := self._clock()) < self._next:
            return
        self._next = now + PAUSE_SECONDS
        problems = instance.database.read(lambda connection: on_tables(instance, connection))
        if not problems:
            self._reported = ()
        elif problems != self._reported or now - self._reported_at >= alarms.AGAIN_AFTER.total_seconds():
            self._reported, self._reported_at = problems, now
            _alarm(instance, problems)


def in_the_way(instance: Instance) -> tuple[str, ...]:
    """What others put on the tables that may keep or change what is written or read, in words; not what the settings
    name.

    Raises DatabaseUnavailable.
    """
    return instance.database.read(lambda connection: _foreign(instance, connection))


def on_tables(instance: Instance, connection: Connection) -> tuple[str, ...]:
    """As in_the_way, and which foreign keys of the tables are missing."""
    return (*_foreign(instance, connection), *catalogue.unlinked(connection))


def _foreign(instance: Instance, connection: Connection) -> tuple[str, ...]:
    known = {name.strip() for name in instance.settings.known_triggers.split(",")}
    return tuple(str(one) for one in catalogue.foreign(connection) if one.name not in known)


def in_verifying(problems: tuple[str, ...]) -> str:
    """These problems as what is wrong with the audit log."""
    return (
        f"what is written to the tables may not be what Keyrack writes, as there is {_shown(problems)}, which is not "
        "Keyrack's. Drop it, or name it in known_triggers"
    )


def _shown(problems: tuple[str, ...]) -> str:
    more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


def _alarm(instance: Instance, problems: tuple[str, ...]) -> None:
    words = (
        f"The tables in the database are not as Keyrack made them, and not by Keyrack: {_shown(problems)}. "
        "What was added may keep or change what is written; drop it, or name it in known_triggers if it is yours."
    )
    log.error("alarm", reason=words)
    try:
        alarms.raise_about_database(instance, REASON, f"Alarm: {words}")
    except DatabaseUnavailable:
        log.error("alarm not recorded", reason=words)
