"""Numbers with their nouns: protocol/words.py for the core and what is above it; must add nothing to it."""

from __future__ import annotations

from keyrack.protocol.words import count

__all__ = ["count"]
