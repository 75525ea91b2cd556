"""What every command works with: database, settings, instance key, clock; must decide nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from keyrack.core.audit.refusals import Refusals
from keyrack.core.figures import Figures
from keyrack.core.instance_key import InstanceKey
from keyrack.core.people.throttle import Throttle
from keyrack.policy import KeyRules
from keyrack.settings import Settings
from keyrack.store.database import Database


def utc_now() -> datetime:
    """The time now, aware, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Instance:
    """One running Keyrack; built in app.py alone."""

    database: Database
    settings: Settings
    key: InstanceKey
    key_rules: KeyRules
    now: Callable[[], datetime] = field(default=utc_now)
    throttle: Throttle = field(default_factory=Throttle, compare=False, repr=False)
    figures: Figures = field(default_factory=Figures, compare=False, repr=False)
    refusals: Refusals = field(default_factory=Refusals, compare=False, repr=False)
