"""Sends events to webhooks, syslog and a file, on threads beside the service; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from keyrack.core import periodic
from keyrack.core.audit import webhooks
from keyrack.core.audit.sinks import Sinks
from keyrack.core.audit.webhooks import DueDeliveries
from keyrack.core.instance import Instance
from keyrack.logs import logger
from keyrack.store.database import DatabaseUnavailable
from keyrack.web.outgoing import Outgoing

log = logger("keyrack")

EVERY_SECONDS = 1.0
FORGET_EVERY = 3600
THREADS = 8


def start(instance: Instance) -> Callable[[], None]:
    """Start sending; returns the function that stops it."""
    loop = _Loop(instance)
    end = periodic.every(EVERY_SECONDS, lambda _: loop.turn(), name="deliveries", failing="events are not delivered")

    def stop() -> None:
        end()
        loop.close()

    return stop


class _Loop:
    """Sends what is due. A webhook has one sender at a time, so that one that does not answer delays no other."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._post = Outgoing(instance.settings, "webhook_networks").post
        self._pool = ThreadPoolExecutor(THREADS, "webhook")
        self._busy: dict[int, Future[int]] = {}
        self._sinks = Sinks(instance)
        self._turns = 0

    def turn(self) -> None:
        self._turns += 1
        self._busy = {number: future for number, future in self._busy.items() if not future.done()}
        webhooks.queue_new(self._instance)
        for due in webhooks.claim(self._instance, frozenset(self._busy)):
            self._busy[due.webhook.id] = self._pool.submit(self._send, due)
        if self._sinks.wanted:
            self._sinks.hand_on()
        webhooks.clear_deleted(self._instance)
        if self._turns % FORGET_EVERY == 0:
            webhooks.forget_old(self._instance)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._sinks.close()

    def _send(self, due: DueDeliveries) -> int:
        try:
            return webhooks.send(self._instance, due, self._post)
        except DatabaseUnavailable:
            return 0
        except Exception:  # the other receivers get theirs all the same
            log.exception("a webhook could not be sent to", webhook=due.webhook.id)
            return 0
