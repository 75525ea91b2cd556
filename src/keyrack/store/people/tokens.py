"""Questions about tokens and their users; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select

from keyrack.model import Page, Token, User, Window
from keyrack.store.engine.prepared import Row, prepared
from keyrack.store.keys.terms import token_in_force
from keyrack.store.people.users import user_record
from keyrack.store.rows import COUNTED, Records, inserted, paged_in_tree
from keyrack.store.sealing import access_tree, sealed, seals
from keyrack.store.tables import IS_LISTED, tokens, users
from keyrack.store.tables.columns import EPOCH
from keyrack.store.unchanged import kept


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token and its user."""

    token: Token
    user: User


def add_token(
    connection: Connection,
    owner: User,
    *,
    kind: str,
    name: str,
    secret_hash: bytes,
    scopes: Iterable[str],
    details: Mapping[str, Any],
    at: datetime,
    expires_at: datetime | None,
) -> int:
    """Insert a token of a user; answers its id."""
    return inserted(
        connection,
        tokens,
        {
            "user_id": owner.id,
            "workspace_id": owner.workspace_id,
            "kind": kind,
            "name": name,
            "secret_hash": secret_hash,
            "scopes": list(scopes),
            "details": dict(details),
            "created_at": at,
            "expires_at": expires_at,
        },
    )


_bearer = select(*seals.columns(tokens, "token_"), *seals.columns(users, "user_")).join_from(
    tokens, users, users.c.id == tokens.c.user_id
)


def bearer(connection: Connection, secret_hash: bytes) -> Bearer | None:
    """The token with this hash and its user, in force or not; None when there is none."""
    return kept(connection, ("bearer", secret_hash), lambda: _bearers.one(connection, _bearer_by_secret, secret_hash))


@prepared
def _bearer_by_secret(secret_hash: bytes) -> Select[Any]:
    # With the tree's root beside it, as this is asked before each call.
    return _bearer.add_columns(access_tree.root_content.label(COUNTED)).where(tokens.c.secret_hash == secret_hash)


def _bearer_record(connection: Connection, row: Row) -> Bearer:
    return Bearer(token=_token(connection, row, "token_"), user=user_record(connection, row, "user_"))


def _is_in_force(bearer: Bearer) -> bool:
    return bearer.token.revoked_at is None and bearer.user.disabled_at is None


# Altered rows count as revoked or disabled, so they are not kept, but checked and noted each time.
_bearers = Records(_bearer_record, named=("token_id",), keep=_is_in_force)


def find_tokens(connection: Connection, user_id: int) -> tuple[Token, ...]:
    """All tokens of a user, oldest first."""
    return tuple(_token(connection, row) for row in _tokens_of.rows(connection, user_id))


@prepared
def _tokens_of(user_id: int) -> Select[Any]:
    return select(tokens).where(tokens.c.user_id == user_id).order_by(tokens.c.id)


def api_token(connection: Connection, workspace_id: int, token_id: int) -> Bearer | None:
    """An API token of this workspace and its user, in force or not, or None."""
    row = _api_token.row(connection, workspace_id, token_id)
    return None if row is None else _bearer_record(connection, row)


@prepared
def _api_token(workspace_id: int, token_id: int) -> Select[Any]:
    return _bearer.where(tokens.c.id == token_id, tokens.c.workspace_id == workspace_id, tokens.c.kind == "api")


def find_api_tokens(connection: Connection, workspace_id: int, window: Window) -> Page[Bearer]:
    """A page of a workspace's API tokens that are not revoked, oldest first."""
    return _api_tokens.page(connection, lambda row: _bearer_record(connection, row), window, workspace_id)


@paged_in_tree
def _api_tokens(workspace_id: int) -> Select[Any]:
    return _bearer.where(tokens.c.workspace_id == workspace_id, IS_LISTED).order_by(tokens.c.id)


@paged_in_tree
def _tokens_of_instance() -> Select[Any]:
    return _bearer.where(IS_LISTED).order_by(tokens.c.id)


def tokens_of_instance(connection: Connection, window: Window) -> Page[Bearer]:
    """A page of all workspaces' API tokens that are not revoked, oldest first."""
    return _tokens_of_instance.page(connection, lambda row: _bearer_record(connection, row), window)


def change_token(connection: Connection, token_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a token."""
    sealed.change(connection, tokens, sealed.row_of(token_id), values=values)


def count_iam_tokens(connection: Connection, user_id: int, at: datetime) -> int:
    """How many IAM tokens a user has in force."""
    return int(_count_iam_tokens.value(connection, user_id, at))


@prepared
def _count_iam_tokens(user_id: int, at: datetime) -> Select[Any]:
    return select(func.count()).where(tokens.c.user_id == user_id, tokens.c.kind == "iam", token_in_force(at))


def revoke_tokens(connection: Connection, at: datetime, *, user_id: int, kind: str | None = None) -> int:
    """Revoke a user's tokens, all or those of one kind; answers how many."""
    which = [tokens.c.user_id == user_id, tokens.c.revoked_at.is_(None)]
    if kind is not None:
        which.append(tokens.c.kind == kind)
    return len(sealed.change(connection, tokens, *which, values={"revoked_at": at}))


def revoke_token(connection: Connection, token_id: int, at: datetime) -> None:
    """Revoke one token."""
    sealed.change(connection, tokens, sealed.row_of(token_id), values={"revoked_at": at})


def remove_dead_tokens(connection: Connection, before: datetime, *, user_id: int | None = None) -> int:
    """Delete tokens, all or one user's, that expired before an instant; answers how many."""
    which = [tokens.c.expires_at < before]
    if user_id is not None:
        which.append(tokens.c.user_id == user_id)
    return sealed.remove(connection, tokens, *which)


def _token(connection: Connection, row: Any, prefix: str = "") -> Token:
    """A token from its row; revoked and without scopes if others altered the row."""
    fields = seals.unsealed(seals.part(row, tokens, prefix))
    del fields["secret_hash"]
    if not sealed.sound(connection, tokens, row, prefix):
        return Token(**{**fields, "scopes": (), "details": {}, "revoked_at": fields["revoked_at"] or EPOCH})
    return Token(**{**fields, "scopes": tuple(fields["scopes"])})
