"""Changes name, address, provider, tags and mode of a server as one change; must hold no rules for these."""

from __future__ import annotations

from collections.abc import Sequence

from keyrack.core import together
from keyrack.core.hosts import modes, servers
from keyrack.core.instance import Instance
from keyrack.core.lookups import own_server
from keyrack.core.validation import KEEP
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid
from keyrack.model import Actor, Server


def change(
    instance: Instance,
    actor: Actor,
    server_id: int,
    *,
    name: object = KEEP,
    address: object = KEEP,
    provider: object = KEEP,
    tags: Sequence[str] | None = None,
    mode: str | None = None,
) -> Server:
    """Change what is given, all of it or nothing; what is the same already leaves no event.

    tags: all of them; None and KEEP leave things as they are. Its host stays enrolled. Raises Refusal MISSING or
    INVALID.
    """
    with Attempt(
        instance, actor, "servers:write", "change a host", target_kind="server", server_id=server_id
    ) as attempt:
        if tags is not None and not all(isinstance(one, str) for one in tags):
            raise invalid("tags", "tags takes a list of texts.")

        def run(work: Work) -> Server:
            inside = together.within(work)
            server = own_server(work, server_id)
            if not (name is KEEP and address is KEEP and provider is KEEP):
                wanted = server.name if name is KEEP else name
                servers.rename(inside, actor, server_id, name=wanted, provider=provider, address=address)
            if tags is not None and set(tags) != set(server.tags):
                servers.retag(inside, actor, server_id, sorted(set(tags)))
            if mode is not None:
                modes.set_mode(inside, actor, server_id, mode)
            work.no_event("each part leaves an event")
            return own_server(work, server_id)

        return attempt.write(run)
