"""The tables of signing in with a browser: sessions, second factors, identities; must hold no question and no rule."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, String, Table, Text, UniqueConstraint

from keyrack.store.tables import Moment, metadata


def _table(name: str, *columns: Any) -> Table:
    return Table(name, metadata, *columns, sqlite_autoincrement=True)


def _id() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _seal() -> Column[bytes]:
    return Column("seal", LargeBinary(32))


def _of(target: str) -> ForeignKey:
    return ForeignKey(f"{target}.id", ondelete="CASCADE")


web_sessions = _table(
    "web_sessions",
    # A browser that somebody signed in with. proven_at: when the person last proved to be it; issuer, issuer_session:
    # of the provider that signed them in, so that it can end the session.
    _id(),
    Column("workspace_id", Integer, _of("workspaces"), nullable=False),
    Column("user_id", Integer, _of("users"), nullable=False, index=True),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("method", String(32), nullable=False),
    Column("address", String(64), nullable=False),
    Column("browser", String(255), nullable=False),
    Column("issuer", Text),
    Column("issuer_session", String(255), index=True),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False, index=True),
    Column("proven_at", Moment, nullable=False),
    Column("seen_at", Moment, nullable=False),
    _seal(),
)

authenticators = _table(
    "authenticators",
    # What somebody signs in with beside the password. kind "totp": secret is its key, encrypted, step the last used;
    # "passkey": secret is the public key, credential its id, step the count of its signatures; "recovery": secret is a
    # code's hash; "password": the person chose the password, rather than somebody else.
    _id(),
    Column("user_id", Integer, _of("users"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(255), nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("credential", LargeBinary(1023), unique=True),
    Column("step", Integer),
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment),
    _seal(),
)

identities = _table(
    "identities",
    # Who a user is at an OpenID provider.
    _id(),
    Column("user_id", Integer, _of("users"), nullable=False, index=True),
    Column("issuer", Text, nullable=False),
    Column("subject", String(255), nullable=False),
    Column("created_at", Moment, nullable=False),
    _seal(),
    UniqueConstraint("issuer", "subject"),
)

sign_in_steps = _table(
    "sign_in_steps",
    # What is needed to finish a sign-in that has begun, encrypted by the instance's key and used once.
    _id(),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("held", LargeBinary, nullable=False),
    Column("expires_at", Moment, nullable=False, index=True),
)
