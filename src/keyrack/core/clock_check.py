"""Corrects times in the future that a clock which was ahead has left, once it is set back; must end and lengthen
nothing.

Otherwise a host that was last seen in the future would count as online until then, and what was due then would wait.
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
"""Synchronised clocks are corrected by less, and several machines that serve differ by less."""


class ClockCheck:
    """Notices that the clock was set back since the last check, or may have been before the first one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ahead: float | None = None  # how far the time of day is ahead of the monotonic clock

    def go_on(self, instance: Instance) -> bool:
        """Correct times in the future where the clock was or may have been set back; answers whether. Raises
        DatabaseUnavailable.
        """
        now = instance.now()
        before = self._ahead
        ahead = now.timestamp() - self._clock()
        if before is not None and ahead > before - LEAST_SECONDS:
            self._ahead = ahead
            return False
        # After a start it is unknown how long a delivery has to wait: the longest wait that there is may be right.
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
