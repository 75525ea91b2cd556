"""API tokens: what calls take and answer; must call no use case."""

from __future__ import annotations

from typing import Annotated, ClassVar

from keyrack.core.people.api_tokens import NewApiToken
from keyrack.store.people.tokens import Bearer
from keyrack.web.native.shapes import (
    Answer,
    CursorWindow,
    DurationOrNone,
    EndOrNone,
    Id,
    Listed,
    Request,
    Time,
    about,
    time,
    time_or_null,
)


class Token(Answer):
    """A token of the API, never its secret."""

    untagged: ClassVar[frozenset[str]] = frozenset({"last_used_at"})

    id: Annotated[Id, about("Its id.")]
    name: Annotated[str, about("What it is called.", "ci")]
    user: Annotated[str, about("Whose it is.", "alice")]
    scopes: Annotated[list[str], about("What it may be used for.", ["servers:*"])]
    created_at: Annotated[Time, about("When it was made.")]
    expires_at: Annotated[Time | None, about("When it ends.")]
    last_used_at: Annotated[Time | None, about("When it was last used, to the hour.")]


class WantedToken(Request):
    """A token that is to stand."""

    name: Annotated[str, about("What it is called.", "ci")]
    scopes: Annotated[list[str], about("What it may be used for; never more than the caller may.", ["servers:read"])]
    expires_at: EndOrNone = None
    user: Annotated[str | None, about("Whose it is; the caller's own where it is left out.", "alice")] = None


class NewToken(WantedToken):
    """A token to be made."""

    duration: DurationOrNone = None


class Rotation(Request):
    """How a token gets a new secret."""

    overlap: Annotated[str, about("For how long the old one goes on, such as 24h; 0s for not at all.", "24h")] = "0s"


class MadeToken(Token):
    """A new token, with its secret, which is shown this once."""

    untagged: ClassVar[frozenset[str]] = Token.untagged | {"token", "replaces", "replaced_ends_at"}

    token: Annotated[str, about("The token itself. It is shown this once.", "kr_EXAMPLE")]
    replaces: Annotated[Id | None, about("The id of the token that it takes the place of, if it does.")]
    replaced_ends_at: Annotated[Time | None, about("When that one ends.")]


class StandingToken(Token):
    """A token that stands, with its secret where it was made just now."""

    untagged: ClassVar[frozenset[str]] = Token.untagged | {"token"}

    token: Annotated[str | None, about("The token itself, where this call made it. It is shown this once.", None)]


class TokenPage(Listed[Token]):
    """A page of tokens."""


class TokenOfInstance(Token):
    """An API token with its workspace."""

    workspace: Annotated[str, about("In which workspace.", "acme")]


class InstanceTokenPage(Listed[TokenOfInstance]):
    """A page of the tokens of all workspaces."""


class InstanceTokensAsked(CursorWindow):
    """Which part of the tokens of all workspaces."""


def token_of_instance(bearer: Bearer, workspaces: dict[int, str]) -> TokenOfInstance:
    """An API token with its workspace; workspaces: names by id."""
    return TokenOfInstance(**token(bearer).model_dump(), workspace=workspaces.get(bearer.token.workspace_id, "?"))


def token(bearer: Bearer) -> Token:
    """A token of the API."""
    held = bearer.token
    return Token(
        id=held.id,
        name=held.name,
        user=bearer.user.name,
        scopes=list(held.scopes),
        created_at=time(held.created_at),
        expires_at=time_or_null(held.expires_at),
        last_used_at=time_or_null(held.last_used_at),
    )


def standing_token(record: NewApiToken) -> StandingToken:
    """A token that stands."""
    return StandingToken(**token(record.bearer).model_dump(), token=record.secret or None)


def made_token(made: NewApiToken) -> MadeToken:
    """A new token, this once with its secret."""
    return MadeToken(
        **token(made.bearer).model_dump(),
        token=made.secret,
        replaces=None if made.replaced is None else made.replaced.id,
        replaced_ends_at=None if made.replaced is None else time_or_null(made.replaced.expires_at),
    )
