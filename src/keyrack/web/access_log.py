"""Notes each answer for the figures, and those that refuse or fail for the log; must hold no secret and no query."""

from __future__ import annotations

import threading
import time
from http import HTTPStatus

import structlog
from starlette.types import Scope

from keyrack.core.instance import Instance

MOST_LINES_A_SECOND = 50

log = structlog.get_logger("keyrack.web")


class Notes:
    """What is noted of answers; prefixes: where APIs are mounted, the few values by which requests are counted."""

    def __init__(self, instance: Instance, prefixes: tuple[str, ...]) -> None:
        self._figures = instance.figures
        self._prefixes = sorted(prefixes, key=len, reverse=True)
        self._lock = threading.Lock()
        self._second = 0
        self._lines = 0
        instance.throttle.heard = lambda kind, why: self._figures.proofs.labels(kind, why).inc()

    def note(self, scope: Scope, status: int) -> None:
        """One answer, as it begins."""
        path = scope["path"]
        api = next((prefix for prefix in self._prefixes if path == prefix or path.startswith(prefix + "/")), "/")
        self._figures.requests.labels(api, f"{status // 100}xx").inc()
        if status < 400 or not self._has_room():
            return
        client = scope.get("client")
        say = log.error if status in (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE) else log.info
        # The path alone: a query may hold what was meant for somebody else.
        say("refused", method=scope["method"], path=path[:200], status=status, address=client[0] if client else "")

    def _has_room(self) -> bool:
        """At most so many lines a second, so that a flood of refusals is none of lines."""
        with self._lock:
            now = int(time.monotonic())
            if now != self._second:
                if self._lines > MOST_LINES_A_SECOND:
                    log.warning("more refusals than are written here", left_out=self._lines - MOST_LINES_A_SECOND)
                self._second, self._lines = now, 0
            self._lines += 1
            return self._lines <= MOST_LINES_A_SECOND
