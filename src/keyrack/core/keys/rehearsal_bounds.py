"""How many servers a rehearsal compares; must import nothing, as commands load it too."""

from __future__ import annotations

MAX_SERVERS = 200
"""So many of the servers that a change concerns are compared: a rehearsal holds up other changes while it runs."""
