"""Who a caller is, as the core takes it: a user, or somebody whose proof did not hold; must not judge any proof."""

from __future__ import annotations

from keyrack.model import Actor, User


def of_user(user: User, *, address: str, channel: str) -> Actor:
    """The actor that a user is, calling through a channel; whoever checked a proof adds it, and its bounds."""
    return Actor(
        workspace_id=user.workspace_id,
        user_id=user.id,
        name=user.name,
        role=user.role,
        policies=user.policies,
        address=address,
        channel=channel,
    )


def stranger(
    workspace_id: int | None, user_id: int | None, name: str | None, *, address: str, channel: str, token_name: str = ""
) -> Actor:
    """The actor in whose name a refused proof is noted: whom it named, None where there is nobody; has no right."""
    return Actor(
        workspace_id=workspace_id or 0,
        user_id=user_id,
        name=name or "",
        role=None,
        token_name=token_name,
        address=address,
        channel=channel,
    )
