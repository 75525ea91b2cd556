"""`keyrack access`, which stands beside `keyrack who-can`; must hold nothing."""

from __future__ import annotations

from keyrack.cli.who_can import of_user as command

__all__ = ["command"]
