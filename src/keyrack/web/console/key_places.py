"""Where a key stands that no person registered as their own; must hold no rule of its own."""

from __future__ import annotations

from dataclasses import dataclass

from keyrack.core.git import deploy_keys, repositories
from keyrack.core.keys import openings
from keyrack.store.git.deploy_keys import DeployKey
from keyrack.store.git.repositories import Repository
from keyrack.store.keys.openings import Opening
from keyrack.web.console.visits import Visit


@dataclass(frozen=True, slots=True)
class KeyPlaces:
    """The accounts that a key opens, registered there or in a file of the host, and the repositories."""

    openings: tuple[Opening, ...]
    deploy_keys: tuple[tuple[Repository, DeployKey], ...]

    @property
    def cut(self) -> bool:
        """Whether it may open more accounts than these."""
        kinds = [one.kind for one in self.openings]
        return any(kinds.count(kind) >= openings.MAX for kind in set(kinds))


def places_of(visit: Visit, fingerprint: str) -> KeyPlaces | None:
    """The places of a key, as far as the visitor may see them; None where there is none."""
    asked = visit.instance, visit.actor, fingerprint
    accounts = openings.of_key(*asked) if visit.may("credentials:read") else ()
    in_repositories = deploy_keys.with_fingerprint(*asked) if visit.may(repositories.READ) else ()
    return KeyPlaces(accounts, in_repositories) if accounts or in_repositories else None
