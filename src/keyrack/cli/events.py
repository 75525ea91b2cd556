"""`keyrack events`: the audit log, also reached as `keyrack hosts events`; must hold nothing of its own."""

from __future__ import annotations

from keyrack.cli.hosts import show_events

command = show_events
