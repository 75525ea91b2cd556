"""The workspace's servers, page by page, by a text and by their state; must change none, nor load what does."""

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
"""Not heard of lately; not obeying the newest document yet; not enrolled yet; showing a host key that nobody confirmed;
with something wrong there, by its own word or as two machines go by its identity or the database went back.
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
    """A page of the workspace's servers, oldest first; search: part of name or address; state: one of STATES alone;
    cursor: instead of offset, of the page before, "" for the first one. Raises Refusal INVALID or FORBIDDEN.
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
