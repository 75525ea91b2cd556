"""Figures of one process for Prometheus; must hold no name of a user, a server or an address."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client import generate_latest as _generate

DELAYS = (0.1, 0.3, 1, 3, 10, 30, 60, 300, 3600, 86_400)


class Figures:
    """What is counted; each process counts for itself, and nothing is asked of the database when they are read."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Counter(
            "keyrack_requests", "Requests answered, by API and class of status.", ["api", "outcome"], registry=registry
        )
        self.waiting = Gauge("keyrack_agents_waiting", "Agents that wait for a change.", registry=registry)
        self.behind = Gauge(
            "keyrack_hosts_behind", "Enrolled hosts that do not obey their newest document yet.", registry=registry
        )
        self.delivery = Histogram(
            "keyrack_delivery_seconds",
            "From a change to the host's word that it obeys it.",
            buckets=DELAYS,
            registry=registry,
        )
        self.events = Counter(
            "keyrack_events", "Events of the audit log written, by outcome.", ["outcome"], registry=registry
        )
        self.done = self.events.labels("done")
        self.proofs = Counter(
            "keyrack_refused_proofs", "Wrong proofs, and proofs refused untried.", ["kind", "why"], registry=registry
        )

    def delivered(self, seconds: list[float]) -> None:
        """Count a delivery that took the last of these seconds, if there is one."""
        for taken in seconds[-1:]:
            self.delivery.observe(taken)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return _generate(self._registry)

    @property
    def registry(self) -> CollectorRegistry:
        """What a server of its own reads."""
        return self._registry
