"""Counts each response in the metrics, and logs refusals and failures; must log no secret and no query."""

from __future__ import annotations

import re
import threading
import time
from http import HTTPStatus

from prometheus_client import Counter
from starlette.types import Scope

from keyrack.core.instance import Instance
from keyrack.logs import logger

MAX_LINES_PER_SECOND = 50

_LIKE_A_SECRET = re.compile(r"[\w-]{43,}")
"""As long as the shortest of Keyrack's secrets: a caller may put a token into a path in place of its id."""

log = logger("keyrack.web")


def shown(path: str) -> str:
    """A path for the log: at most 200 characters, and of each part that may be a secret only the beginning."""
    return _LIKE_A_SECRET.sub(lambda part: f"{part[0][:6]}…", path)[:200]


class Notes:
    """Counts responses by their API's prefix, and logs refusals and failures."""

    def __init__(self, instance: Instance) -> None:
        self._figures = instance.figures
        self._counters: dict[tuple[str, int], Counter] = {}
        self._lock = threading.Lock()
        self._second = 0
        self._lines = 0
        instance.throttle.on_wrong_proof = lambda kind, why: self._figures.proofs.labels(kind, why).inc()

    def note(self, scope: Scope, prefix: str, status: int) -> None:
        """Note one response as it begins; prefix: of its API."""
        path = scope["path"]
        counter = self._counters.get((prefix, status // 100))
        if counter is None:
            counter = self._figures.requests.labels(prefix, f"{status // 100}xx")
            self._counters[prefix, status // 100] = counter
        counter.inc()
        if status < 400 or not self._has_room():
            return
        client = scope.get("client")
        say = log.error if status in (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE) else log.info
        # Only the path: a query may hold a secret.
        say("refused", method=scope["method"], path=shown(path), status=status, address=client[0] if client else "")

    def _has_room(self) -> bool:
        """Whether one more line may be logged this second: a flood of refusals must not flood the log."""
        with self._lock:
            now = int(time.monotonic())
            if now != self._second:
                if self._lines > MAX_LINES_PER_SECOND:
                    log.warning("more refusals than are written here", left_out=self._lines - MAX_LINES_PER_SECOND)
                self._second, self._lines = now, 0
            self._lines += 1
            return self._lines <= MAX_LINES_PER_SECOND
