"""The place where main.py expects `keyrack access`, which is in who_can.py; must hold nothing of its own."""

from __future__ import annotations

from keyrack.cli.who_can import of_user as command

__all__ = ["command"]
