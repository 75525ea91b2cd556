"""Waits until a signal tells this program to stop; must start and stop nothing itself."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Sequence


def stop_at_hangup() -> None:
    """Have the loss of the terminal (SIGHUP) stop this program in order, as SIGTERM does, unless `nohup` ignores it.

    Otherwise it would end at once: requests under way would be cut off, and the programs that it started would stay.
    """
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: signal.raise_signal(signal.SIGTERM))


class Stopping:
    """Told by signals, or by a thread; made once in a program, by its main thread.

    An Event would not do: a signal that comes just as the main thread begins to wait for one runs its handler while the
    Event's lock is held, or not at all. A pipe keeps what is written until it is read.
    """

    def __init__(self, numbers: Sequence[int] = (signal.SIGINT, signal.SIGTERM)) -> None:
        """numbers: the signals that tell it to stop."""
        self._numbers = numbers
        self._told = False
        self._reads, self._writes = os.pipe()
        os.set_blocking(self._writes, False)
        self._poll = select.poll()
        self._poll.register(self._reads, select.POLLIN)
        for number in numbers:
            signal.signal(number, lambda number, frame: None)  # a signal with SIG_IGN would not reach the pipe
        signal.set_wakeup_fd(self._writes, warn_on_full_buffer=False)
        stop_at_hangup()

    def tell(self) -> None:
        """Stop; from any thread."""
        os.write(self._writes, bytes(self._numbers[:1]))

    def is_told(self) -> bool:
        """Whether the program has been told to stop."""
        return self._is_told(0)

    def wait(self) -> None:
        """Return once the program has been told to stop."""
        while not self._is_told(None):
            pass

    def _is_told(self, milliseconds: int | None) -> bool:
        """Whether it has been told, waiting so long for it; None: until it has."""
        if not self._told and self._poll.poll(milliseconds):
            self._told = any(number in self._numbers for number in os.read(self._reads, 64))
        return self._told
