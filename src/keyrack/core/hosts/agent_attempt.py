"""The attempt as which Keyrack acts on what a host reports; must let no other actor in."""

from __future__ import annotations

from keyrack.core.instance import Instance
from keyrack.core.people.actors import system_actor
from keyrack.core.work import Attempt

REPORTING = "report a host's state"  # the aim of every report


def agent_attempt(instance: Instance, workspace_id: int, server_id: int, aim: str) -> Attempt:
    """An attempt on behalf of the agent of a server's host; aim: in words.

    workspace_id: the server's where no other change of that workspace may come in between, else 0.
    """
    return Attempt(
        instance,
        system_actor(workspace_id, channel="agent"),
        "servers:write",
        aim,
        target_kind="server",
        target_id=server_id,
        server_id=server_id,
    )
