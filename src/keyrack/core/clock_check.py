"""Puts right what a clock that was ahead has left, once it was set back; must end and lengthen nothing.

A host that was heard of at a moment still to come would be online until then, however long it is gone by now, and what
was to be sent at such a moment would wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from sqlalchemy import Connection

from keyrack.core.audit import webhooks
from keyrack.core.hosts.last_seen import ONLINE
from keyrack.core.instance import Instance
from keyrack.core.keys import key_sync
from keyrack.logs import logger
from keyrack.store import future_times

log = logger("keyrack")

LEAST_SECONDS = 10.0
"""Clocks that are kept right are set by less, and several machines that serve differ by less."""


class ClockCheck:
    """Whether the clock was set back since the last check, or may have been before the first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ahead: float | None = None  # how far the time of day is ahead of the clock that nobody sets

    def go_on(self, instance: Instance) -> bool:
        """Put right what a clock ahead has left; answers whether there may be such. Raises DatabaseUnavailable."""
        now = instance.now()
        before, ahead = self._ahead, now.timestamp() - self._clock()
        if before is not None and ahead > before - LEAST_SECONDS:
            self._ahead = ahead
            return False
        # After a start nobody knows by what clock a delivery waits: the longest wait there is may be right.
        waits = webhooks.WAITS[-1] if before is None else webhooks.LEASE
        syncs = key_sync.longest_wait(instance)

        def put_right(connection: Connection) -> None:
            future_times.hosts_seen(connection, now, latest=now + ONLINE)
            future_times.git_endpoints_seen(connection, now, latest=now + ONLINE)
            future_times.deliveries_due(connection, now, latest=now + waits)
            future_times.key_sources_due(connection, now, latest=now + syncs)

        instance.database.write(put_right)
        if before is not None:
            log.warning("the clock was set back", by=str(timedelta(seconds=round(before - ahead))))
        self._ahead = ahead
        return True
