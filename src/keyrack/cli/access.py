"""Where the command line looks for `keyrack access`, which who_can.py has; must hold nothing of its own."""

from __future__ import annotations

from keyrack.cli.who_can import of_user as command

__all__ = ["command"]
