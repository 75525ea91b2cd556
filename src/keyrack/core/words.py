"""Numbers with their nouns (protocol/words.py), named here for the core and what is above; must add none of its own."""

from __future__ import annotations

from keyrack.protocol.words import count

__all__ = ["count"]
