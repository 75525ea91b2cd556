"""Runs background work periodically, on a thread of its own for each; must know none of the work."""

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
    """Do work again and again, seconds apart; answers how to stop it, which waits for the run that is under way.

    work: gets what is set once it is to stop, where one run takes long; first: what must have been done once, without a
    failure, before it; name: the thread's; failing: what the log says when a run fails. The next run does what one
    left that failed. A database that is away says so itself, once.
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
            except Exception:  # of our own making, and the next run may do better
                log.exception(failing)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()

    def stop() -> None:
        stopping.set()
        thread.join(timeout=LONGEST_STOP_SECONDS)

    return stop
