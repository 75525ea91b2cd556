"""Who a caller is, as the core takes it: a user, or somebody whose proof was refused; must not check any proof."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyrack import policy
from keyrack.model import Actor, Role, Token, User

if TYPE_CHECKING:
    from keyrack.store.people.access_keys import AccessKeyRow

# What a token for one project may do: repositories (those of the project, see repositories.reach), the user's own keys,
# and the user's own account.
PROJECT_SCOPES = ("codeartsrepo:*", "git:*", "iam:self")
MAX_KEPT = 5_000


def system_actor(workspace_id: int = 0, channel: str = "keyrack", *, like: Actor | None = None) -> Actor:
    """The actor for what Keyrack itself does, such as the first start or removing expired keys.

    like: an operator, who then acts in this workspace and channel under their own name.
    """
    if like is not None:
        return replace(like, workspace_id=workspace_id, channel=channel)
    return Actor(workspace_id=workspace_id, user_id=None, name="keyrack", role=Role.OWNER, channel=channel)


def operator(name: str, host: str, *, channel: str = "cli") -> Actor:
    """Whoever runs a command on the machine that holds the data, and so may do everything.

    name: of the operating system's user; host: the machine's name.
    """
    proof = f"command line on {host}"
    return Actor(workspace_id=0, user_id=None, name=name, role=Role.OWNER, token_name=proof, channel=channel)


def of_user(user: User, *, address: str, channel: str) -> Actor:
    """A user as the actor, calling through a channel; whoever has checked a proof adds the proof and its scopes."""
    return Actor(
        workspace_id=user.workspace_id,
        user_id=user.id,
        name=user.name,
        role=user.role,
        policies=user.policies,
        address=address,
        channel=channel,
    )


def of_token(user: User, token: Token, *, address: str, channel: str) -> Actor:
    """A user as the actor, calling with a token: with the rights that both have."""
    project = str(token.details.get("project") or "")
    return replace(
        of_user(user, address=address, channel=channel),
        scopes=policy.both(token.scopes, PROJECT_SCOPES) if project else token.scopes,
        token_id=token.id,
        token_name=token.name,
        project=project,
        # An API token's end limits what is made with it. An IAM token's does not: its user can sign in again.
        ends_at=token.expires_at if token.kind == "api" else None,
    )


def of_access_key(user: User, key: AccessKeyRow, *, token_name: str, address: str, channel: str) -> Actor:
    """A user as the actor, calling with an access key; token_name: its name in events."""
    return replace(
        of_user(user, address=address, channel=channel),
        scopes=key.scopes,
        token_name=token_name,
        access_key=key.id,
        temporary=key.security_token_hash is not None,
        project=key.project,
        ends_at=key.expires_at,
    )


class TokenActors:
    """A cache of actors who called with a token, used as long as user and token are the very same record objects."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, int, str, str], tuple[User, Token, Actor]] = {}

    def of(self, user: User, token: Token, *, address: str, channel: str) -> Actor:
        """As of_token."""
        # The cache holds the records too: while it does, no other object gets their id().
        place = id(user), id(token), address, channel
        kept = self._kept.get(place)
        if kept is not None:
            return kept[2]
        if len(self._kept) >= MAX_KEPT:
            self._kept.clear()
        actor = of_token(user, token, address=address, channel=channel)
        self._kept[place] = user, token, actor
        return actor


def stranger(
    workspace_id: int | None, user_id: int | None, name: str | None, *, address: str, channel: str, token_name: str = ""
) -> Actor:
    """The actor of a refused proof, for its event: whom the proof named, None for nobody; has no rights."""
    return Actor(
        workspace_id=workspace_id or 0,
        user_id=user_id,
        name=name or "",
        role=None,
        token_name=token_name,
        address=address,
        channel=channel,
    )
