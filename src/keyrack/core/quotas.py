"""How many of each kind there may be, so that nobody fills the database; must limit no size of a single row."""

from __future__ import annotations

from keyrack.core.work import Work
from keyrack.errors import Kind, Refusal
from keyrack.store import room


def refuse_more(work: Work, kind: str, owner: int | None = None) -> None:
    """Refuse one more of a kind (store/room.py) where it is full; owner: the server's id, None for the actor's
    workspace.

    Raises Refusal LIMIT.
    """
    if room.is_full(work.connection, kind, work.actor.workspace_id if owner is None else owner):
        most = room.LIMITS[kind][1]
        place = "This workspace" if owner is None else "This server"
        words = f"{place} has {most} of what you want one more of ({kind}), which is the most; delete some first."
        raise Refusal(Kind.LIMIT, "no-room", words)
