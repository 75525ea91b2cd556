"""How much of a change is looked at before it is made; must load nothing, as commands load it too."""

from __future__ import annotations

MOST_SERVERS = 200
"""So many of the servers that a change concerns are looked at: a rehearsal holds up other changes while it runs."""
