"""Where a key stands that no person registered as their own; must hold no rule of its own."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from keyrack.core.keys import key_places
from keyrack.core.keys.key_places import KeyPlace
from keyrack.errors import Refusal
from keyrack.ssh.fingerprint import is_fingerprint
from keyrack.web.console.visits import Visit


@dataclass(frozen=True, slots=True)
class PlacesOfKey:
    """The accounts that a key opens, registered there or in a file of the host, and the repositories.

    cut: there are more than these.
    """

    accounts: tuple[KeyPlace, ...]
    deploy_keys: tuple[KeyPlace, ...]
    cut: bool


def places_of(visit: Visit, fingerprint: str) -> PlacesOfKey | None:
    """The places of a key, as far as the visitor may see them; None where there is none."""
    if is_fingerprint(fingerprint):
        with suppress(Refusal):
            found = key_places.of_key(visit.instance, visit.actor, fingerprint)
            accounts = tuple(one for one in found.items if one.server_id is not None)
            in_repositories = tuple(one for one in found.items if one.repository is not None)
            if accounts or in_repositories:
                return PlacesOfKey(accounts, in_repositories, found.next is not None)
    return None
