"""Ways in as people see them: an account of a host and all keys that open it for one reason; must ask nothing."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime

from keyrack.core.keys.who_can import Way


@dataclass(frozen=True, slots=True)
class AccountWays:
    """An account of a host that a grant, or a key entered there, lets somebody in to: with each of their keys."""

    ways: tuple[Way, ...]

    @property
    def way(self) -> Way:
        """Any of them: all but the key is the same."""
        return self.ways[0]

    @property
    def last_used_at(self) -> datetime | None:
        """When any of the keys last logged in there."""
        return max((way.last_used_at for way in self.ways if way.last_used_at), default=None)


def of(ways: Iterable[Way]) -> list[AccountWays]:
    """Ways in, grouped by account and by what opens it, in the order in which they come."""
    by_place: dict[Hashable, list[Way]] = {}
    for way in ways:
        reason, opened_by = way.reason, way.reason.grant or way.reason.credential
        # A key that ends before the others do has a row of its own, and so has one that sshd refuses.
        number = opened_by.id if opened_by else 0
        place = (way.user, way.server.id, reason.username, way.kind, number, reason.expires_at, way.refused)
        by_place.setdefault(place, []).append(way)
    return [AccountWays(tuple(some)) for some in by_place.values()]
