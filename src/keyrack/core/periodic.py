"""Runs background work periodically, each on its own thread; must know none of the work."""

from __future__ import annotations

import threading
from collections.abc import Callable

from keyrack.logs import logger
from keyrack.store.database import DatabaseUnavailable

log = logger("keyrack")

LONGEST_STOP_SECONDS = 10


def every(
    seconds: float,
    work: Callable[[threading.Event], object],
    *,
    first: Callable[[], object] = lambda: None,
    name: str,
    failing: str,
) -> Callable[[], None]:
    """Run work every so many seconds; answers a function that stops it, and waits for a run that is under way.

    work: gets an event that is set when it is to stop, for long runs; first: must succeed once before work runs; name:
    the thread's; failing: the log line for a failed run, after which the next run goes on. A database that is away logs
    that itself, once.
    """
    stopping = threading.Event()

    def run() -> None:
        begun = False
        while not stopping.wait(seconds):
            try:
                if not begun:
                    first()
                    begun = True
                work(stopping)
            except DatabaseUnavailable:
                pass
            except Exception:  # a fault of ours; the next run may succeed
                log.exception(failing)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join(timeout=LONGEST_STOP_SECONDS)

    return stop
