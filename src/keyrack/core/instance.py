"""What every command works with: database, settings, instance key, clock; must decide nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from keyrack.core.audit.key_counts import KeptCounts
from keyrack.core.audit.refusals import Refusals
from keyrack.core.audit.tallies import Tallies
from keyrack.core.figures import Figures
from keyrack.core.instance_key import InstanceKey
from keyrack.core.keys.kept_policies import KeptPolicies
from keyrack.core.people.actors import TokenActors
from keyrack.core.people.throttle import Throttle
from keyrack.policy import KeyRules
from keyrack.settings import Settings
from keyrack.store.database import Database

if TYPE_CHECKING:
    from keyrack.store.audit.audit_log import SignedCheckpoint


def utc_now() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(UTC)


@dataclass(slots=True)
class Checkpoints:
    """The last checkpoint of the audit log that this process knows, and proofs by smaller and larger size."""

    newest: SignedCheckpoint | None = None
    proofs: dict[tuple[int, int], list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Instance:
    """One running Keyrack; only app.py builds it.

    joined: its database is an open transaction; rehearses: that transaction will be undone before any host hears of it.
    """

    database: Database
    settings: Settings
    key: InstanceKey
    key_rules: KeyRules
    now: Callable[[], datetime] = field(default=utc_now)
    joined: bool = field(default=False, compare=False)
    rehearses: bool = field(default=False, compare=False)
    throttle: Throttle = field(default_factory=Throttle, compare=False, repr=False)
    token_actors: TokenActors = field(default_factory=TokenActors, compare=False, repr=False)
    figures: Figures = field(default_factory=Figures, compare=False, repr=False)
    refusals: Refusals = field(default_factory=Refusals, compare=False, repr=False)
    tallies: Tallies = field(default_factory=Tallies, compare=False, repr=False)
    key_counts: KeptCounts = field(default_factory=KeptCounts, compare=False, repr=False)
    key_policies: KeptPolicies = field(default_factory=KeptPolicies, compare=False, repr=False)
    checkpoints: Checkpoints = field(default_factory=Checkpoints, compare=False, repr=False)
