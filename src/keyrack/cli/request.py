"""Where the command line looks for `keyrack request`, which requests.py has; must hold nothing of its own."""

from __future__ import annotations

from keyrack.cli.requests import ask as command

__all__ = ["command"]
