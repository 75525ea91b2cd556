"""Says what still lets a key in when it was taken away somewhere; must change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keyrack.store.keys.openings import Opening


def words(still: Sequence[Opening], *, everywhere: bool = False) -> str:
    """The end of a sentence about a key that was taken away, "" where nothing else lets it in.

    everywhere: the openings are of several accounts, and name them.
    """
    if not still:
        return ""
    return "; still opened by: " + ", ".join(_one(opening, everywhere=everywhere) for opening in still)


def shown(still: Sequence[Opening]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [{"kind": opening.kind, "id": opening.id, "name": opening.name} for opening in still]


def _one(opening: Opening, *, everywhere: bool) -> str:
    what = {"credential": "SSH key {}", "grant": "a grant for {}", "file": "the file {}"}[opening.kind]
    where = f" ({opening.username} on {opening.server_name})" if everywhere else ""
    return what.format(opening.name) + where
