"""`keyrack request`, which stands beside `keyrack requests`; must hold nothing."""

from __future__ import annotations

from keyrack.cli.requests import ask as command

__all__ = ["command"]
