"""Numbers with their nouns, as protocol/words.py has them, for core and what is above it; must add none of its own."""

from __future__ import annotations

from keyrack.protocol.words import count

__all__ = ["count"]
