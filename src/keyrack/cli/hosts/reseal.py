"""`keyrack hosts damaged --reseal`, on an instance's own data alone; must hold no rule, the core has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keyrack.cli.connection.operator_context import operator_context
from keyrack.cli.output.shown import say
from keyrack.core.keys import damaged_rows


def reseal(names: Sequence[str], given: dict[str, Any]) -> None:
    """Let rows count as they stand; names: KIND:ID, or all; given: the options that say where the data is."""
    with operator_context(given) as at:
        for row in damaged_rows.reseal(at.instance, at.actor, names):
            say(f"Sealed {row.name} as it stands: {row.what}.")
