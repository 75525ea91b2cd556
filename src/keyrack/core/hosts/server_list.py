"""The workspace's servers, by page, text and state; must change none, nor import what changes them."""

from __future__ import annotations

from keyrack.core import cursors
from keyrack.core.hosts.last_seen import ONLINE
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt
from keyrack.errors import invalid
from keyrack.model import Actor, Page, Server
from keyrack.store.hosts import servers
from keyrack.store.hosts.server_states import BEHIND as BEHIND
from keyrack.store.hosts.server_states import HOST_KEY as HOST_KEY
from keyrack.store.hosts.server_states import NEW as NEW
from keyrack.store.hosts.server_states import PROBLEMS as PROBLEMS

SILENT = "silent"
STATES = (SILENT, BEHIND, NEW, HOST_KEY, PROBLEMS)
"""SILENT: not heard of within ONLINE; BEHIND: not obeying its newest document yet; NEW: not enrolled yet; HOST_KEY:
showing a host key that nobody confirmed; PROBLEMS: the host reports problems, two machines use its identity, or the
database was set back.
"""


def find(
    instance: Instance,
    actor: Actor,
    *,
    search: str = "",
    state: str = "",
    offset: int = 0,
    limit: int = 15,
    cursor: str | None = None,
) -> Page[Server]:
    """A page of the workspace's servers, oldest first.

    search: part of name or address; state: one of STATES, "" for any; cursor: of the page before, "" for the first one;
    takes the place of offset. Raises Refusal INVALID or FORBIDDEN.
    """
    attempt = Attempt(instance, actor, "servers:read", "list hosts", target_kind="server")
    with attempt:
        after = cursors.place(cursor, int)
        if state and state not in STATES:
            raise invalid("state", f"state takes one of {', '.join(STATES)}.")
        return attempt.read(
            lambda connection: servers.find(
                connection,
                actor.workspace_id,
                search=search,
                silent_since=instance.now() - ONLINE if state == SILENT else None,
                state="" if state == SILENT else state,
                offset=offset,
                limit=limit,
                after=after,
            )
        )
