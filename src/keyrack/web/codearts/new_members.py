"""CodeArts Repo: adds several members to a repository in one call, each in its own transaction; must hold no rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from keyrack.core.git import repositories
from keyrack.errors import Refusal, invalid
from keyrack.web.api import Call
from keyrack.web.codearts import parameters

MAX_MEMBERS = 100


def add_each(call: Call, repository: int | str, *, user: str, role: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Add the users of the body; yields for each what was sent, and why it was refused, "" if it was added.

    user, role: the names of these fields in this version. Raises Refusal where the call as a whole is refused.
    """
    repositories.may_add_members(call.instance, call.actor, repository)
    wanted = call.body.get("users")
    if not isinstance(wanted, list) or not 0 < len(wanted) <= MAX_MEMBERS:
        raise invalid("users", f"users takes a list of 1 to {MAX_MEMBERS} users.")
    for item in wanted:
        sent: Mapping[str, Any] = item if isinstance(item, dict) else {}
        message = ""
        try:
            repositories.set_member(
                call.instance,
                call.actor,
                repository,
                user_uid=parameters.text(sent, user),
                role=parameters.role(sent.get(role), role),
                new=True,
            )
        except Refusal as refusal:
            message = refusal.message
        yield sent, message
