"""Metrics of one process for Prometheus; must hold no name of a user, a server or an address."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric

DELAYS = (0.1, 0.3, 1, 3, 10, 30, 60, 300, 3600, 86_400)


class EventsWritten:
    """How many events of the audit log were written. Commands count too, but only a service shows the number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def inc(self, count: int = 1) -> None:
        """Add to the count."""
        with self._lock:
            self._count += count

    def collect(self) -> Iterator[Metric]:
        """The count as Prometheus' registry takes it."""
        family = importlib.import_module("prometheus_client.core").CounterMetricFamily
        metric = family("keyrack_events", "Events of the audit log written, by outcome.", labels=["outcome"])
        metric.add_metric(["done"], self._count)
        yield metric


class Figures:
    """The metrics of a process; reading them asks the database nothing.

    Prometheus' library is imported with the first use of one of them, so that commands go without it.
    """

    requests: Counter
    waiting: Gauge
    behind: Gauge
    delivery: Histogram
    proofs: Counter
    registry: CollectorRegistry

    def __init__(self) -> None:
        self.done = EventsWritten()
        self._making = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        if name not in Figures.__annotations__:
            raise AttributeError(name)
        with self._making:
            if name not in self.__dict__:
                self.__dict__.update(_metrics(self.done))
        return self.__dict__[name]

    def acknowledged(self, seconds: float) -> None:
        """Count an acknowledgement that came so many seconds after the change."""
        self.delivery.observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        text: bytes = importlib.import_module("prometheus_client").generate_latest(self.registry)
        return text


def _metrics(done: EventsWritten) -> dict[str, Any]:
    prometheus = importlib.import_module("prometheus_client")
    registry = prometheus.CollectorRegistry()
    prometheus.ProcessCollector(registry=registry)
    prometheus.PlatformCollector(registry=registry)
    registry.register(done)
    return {
        "registry": registry,
        "requests": prometheus.Counter(
            "keyrack_requests", "Requests answered, by API and class of status.", ["api", "outcome"], registry=registry
        ),
        "waiting": prometheus.Gauge("keyrack_agents_waiting", "Agents that wait for a change.", registry=registry),
        "behind": prometheus.Gauge(
            "keyrack_hosts_behind", "Enrolled hosts that do not obey their newest document yet.", registry=registry
        ),
        "delivery": prometheus.Histogram(
            "keyrack_delivery_seconds",
            "From a change to the host's word that it obeys it.",
            buckets=DELAYS,
            registry=registry,
        ),
        "proofs": prometheus.Counter(
            "keyrack_refused_proofs", "Wrong proofs, and proofs refused untried.", ["kind", "why"], registry=registry
        ),
    }
