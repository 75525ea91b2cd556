"""Waits until this program is told to stop by a signal; must start and stop nothing itself."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence


class Stopping:
    """Told by signals, or by a thread; made once in a program, by its main thread.

    A signal that comes just as the main thread begins to wait for an Event is never heard of: its handler, which is to
    set the Event, runs while that one's lock is held, or not at all. A pipe keeps what is written before it is read.
    """

    def __init__(self, numbers: Sequence[int] = (signal.SIGINT, signal.SIGTERM)) -> None:
        """numbers: the signals."""
        self._numbers = numbers
        self._told = False
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._poll = select.poll()
        self._poll.register(self._reads, select.POLLIN)
        for number in numbers:
            signal.signal(number, lambda number, frame: None)  # what is ignored is not written either
        signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)

    def tell(self) -> None:
        """Stop; from any thread."""
        os.write(self._writes, bytes(self._numbers[:1]))

    def is_told(self) -> bool:
        """Whether it is to stop."""
        return self._look(0)

    def wait(self) -> None:
        """Return once it is to stop."""
        while not self._look(None):
            pass

    def _look(self, milliseconds: int | None) -> bool:
        if not self._told and self._poll.poll(milliseconds):
            self._told = any(number in self._numbers for number in os.read(self._reads, 64))
        return self._told
