"""Whether a workspace keeps an owner who can sign in when one leaves or gets another role; must change nothing."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core.people.second_factors import PASSKEY
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Role, User
from keyrack.store.people import access_keys, authenticators, tokens, users

MANAGES = "people:write"
"""An owner whose proof allows this can give themselves every other proof."""


def refuse_last(connection: Connection, actor: Actor, user: User, at: datetime) -> None:
    """Refuse to take away the last owner. Raises Refusal INVALID.

    1. Another owner must remain. 2. One of them must have something to sign in with: only owners could give it to them,
    so everybody would be shut out. An operator and Keyrack itself need no proof, so for them 2 does not count.
    """
    if user.role is not Role.OWNER:
        return
    others = users.other_owners(connection, user)
    if not others:  # 1
        words = f"{user.name} is the workspace's last owner; make another user owner first."
        raise Refusal(Kind.INVALID, "last-owner", words)
    if actor.user_id is not None and not any(_can_sign_in(connection, other, at) for other in others):  # 2
        words = (
            f"{user.name} is the last owner who can get in: no other one has a password, a passkey, an access key or a "
            f"token that may do {MANAGES}. Give another owner one first."
        )
        raise Refusal(Kind.INVALID, "last-owner", words)


def has_another(connection: Connection, user: User) -> bool:
    """Whether a user's workspace has another owner who is not disabled."""
    return bool(users.other_owners(connection, user))


def _can_sign_in(connection: Connection, user_id: int, at: datetime) -> bool:
    if users.password_hash(connection, user_id) is not None:
        return True
    if authenticators.any_of_user(connection, user_id, (PASSKEY,)) or authenticators.is_identified(connection, user_id):
        return True
    if any(
        key.active and MANAGES in policy.actions(Role.OWNER, (), key.scopes)
        for key in access_keys.of_user(connection, user_id)
    ):
        return True
    return any(
        token.kind == "api" and token.is_in_force(at) and MANAGES in policy.actions(Role.OWNER, (), token.scopes)
        for token in tokens.find_tokens(connection, user_id)
    )
