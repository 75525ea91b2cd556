"""The tables of signing in with a browser: sessions, second factors, identities; must hold no question and no rule."""

from __future__ import annotations

from sqlalchemy import Column, Integer, LargeBinary, String, Text, UniqueConstraint

from keyrack.store.tables.columns import Moment, id_column, numbered, referring, seal_column

web_sessions = numbered(
    "web_sessions",
    # Browsers in which somebody signed in. proven_at: when the person last proved who they are; issuer, issuer_session:
    # of the provider by which they signed in, so that it can end the session.
    id_column(),
    Column("workspace_id", Integer, referring("workspaces"), nullable=False),
    Column("user_id", Integer, referring("users"), nullable=False, index=True),
    Column("secret_hash", LargeBinary(32), nullable=False, unique=True),
    Column("method", String(32), nullable=False),
    Column("address", String(64), nullable=False),
    Column("browser", String(255), nullable=False),
    Column("issuer", Text),
    Column("issuer_session", String(255), index=True),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment, nullable=False, index=True),
    Column("proven_at", Moment, nullable=False),
    # seen_at: when the session was last used, for sessions from before used_at, which is under the seal.
    Column("seen_at", Moment, nullable=False),
    Column("used_at", Moment, index=True),
    seal_column(),
)

authenticators = numbered(
    "authenticators",
    # What somebody signs in with beside the password. kind "totp": secret is its key, encrypted, step the last used;
    # "passkey": secret is the public key, credential its id, step the count of its signatures; "recovery": secret is a
    # code's hash; "password": the person chose the password, rather than somebody else.
    id_column(),
    Column("user_id", Integer, referring("users"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("name", String(255), nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("credential", LargeBinary(1023), unique=True),
    Column("step", Integer),
    Column("created_at", Moment, nullable=False),
    Column("last_used_at", Moment),
    seal_column(),
)

identities = numbered(
    "identities",
    # By which subject an OpenID provider knows a user.
    id_column(),
    Column("user_id", Integer, referring("users"), nullable=False, index=True),
    Column("issuer", Text, nullable=False),
    Column("subject", String(255), nullable=False),
    Column("created_at", Moment, nullable=False),
    seal_column(),
    UniqueConstraint("issuer", "subject"),
)

spent_proofs = numbered(
    "spent_proofs",
    # Used proofs of those that may be used once, such as a passkey's answer to a challenge; kept until they would be
    # refused for their age.
    id_column(),
    Column("mark", LargeBinary(32), nullable=False, unique=True),
    Column("expires_at", Moment, nullable=False, index=True),
)
