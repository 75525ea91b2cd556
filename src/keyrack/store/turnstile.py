"""Lets so many threads through at a time, first come, first served; must not know what they come for."""

from __future__ import annotations

import threading
from collections import deque

from keyrack.store.connect import DatabaseUnavailable


class Turnstile:
    """A semaphore with a queue.

    A pool of connections (and threading.Semaphore) lets a thread that has just finished overtake those
    that wait: with 32 threads and 16 connections some waited as long as the load lasted.
    """

    def __init__(self, places: int, patience: float) -> None:
        """places: threads inside at a time; patience: seconds a thread waits before it is turned away."""
        self._free = places
        self._patience = patience
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._mutex:
            if self._free:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        if turn.acquire(timeout=self._patience):
            return
        with self._mutex:
            if turn not in self._waiting:
                return  # the place was handed over in the very moment of giving up
            self._waiting.remove(turn)
        raise DatabaseUnavailable("The database has too much to do at the moment. Try again in a while.")

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()  # handed over: nobody can overtake
            else:
                self._free += 1
