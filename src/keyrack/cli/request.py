"""The place where main.py expects `keyrack request`, which is in requests.py; must hold nothing of its own."""

from __future__ import annotations

from keyrack.cli.requests import ask as command

__all__ = ["command"]
