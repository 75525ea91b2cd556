"""Questions about browser sessions and proofs that may be used once; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Delete, Select, delete, select

from keyrack.model import User
from keyrack.store.engine.prepared import Row, among, prepared
from keyrack.store.people.users import user_record
from keyrack.store.rows import inserted
from keyrack.store.sealing import sealed, seals
from keyrack.store.tables import spent_proofs, users, web_sessions


@dataclass(frozen=True, slots=True)
class WebSession:
    """The session of a browser in which somebody signed in, without its secret.

    method: "password", "password and code", "passkey" …; proven_at: when the person last proved who they are; holds:
    whether its row is as Keyrack wrote it.
    """

    id: int
    workspace_id: int
    user_id: int
    method: str
    address: str
    browser: str
    issuer: str | None
    issuer_session: str | None
    created_at: datetime
    expires_at: datetime
    proven_at: datetime
    seen_at: datetime
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Visitor:
    """A session and its user."""

    session: WebSession
    user: User


def add(connection: Connection, values: Mapping[str, Any]) -> int:
    """Insert a session; answers its id."""
    return inserted(connection, web_sessions, values)


def by_secret(connection: Connection, secret_hash: bytes) -> Visitor | None:
    """The session with this hash and its user, in force or not; None where there is none."""
    row = _by_secret.row(connection, secret_hash)
    return None if row is None else Visitor(_record(connection, row, "session_"), user_record(connection, row, "user_"))


@prepared
def _by_secret(secret_hash: bytes) -> Select[Any]:
    named = select(*seals.columns(web_sessions, "session_"), *seals.columns(users, "user_"))
    return named.join(users, users.c.id == web_sessions.c.user_id).where(web_sessions.c.secret_hash == secret_hash)


def by_ids(connection: Connection, ids: Iterable[int]) -> dict[int, Visitor]:
    """Sessions and their users, by id, in force or not."""
    rows = _by_ids.rows(connection, sorted(ids))
    visitors = (Visitor(_record(connection, row, "session_"), user_record(connection, row, "user_")) for row in rows)
    return {one.session.id: one for one in visitors}


@prepared
def _by_ids(ids: Sequence[int]) -> Select[Any]:
    named = select(*seals.columns(web_sessions, "session_"), *seals.columns(users, "user_"))
    return named.join(users, users.c.id == web_sessions.c.user_id).where(among(web_sessions.c.id, ids))


def of_user(connection: Connection, user_id: int, at: datetime) -> tuple[WebSession, ...]:
    """The sessions of a user that have not expired, newest first; those that are idle for too long are among them."""
    return tuple(_record(connection, row) for row in _of_user.rows(connection, user_id, at))


@prepared
def _of_user(user_id: int, at: datetime) -> Select[Any]:
    of_these = select(web_sessions).where(web_sessions.c.user_id == user_id, web_sessions.c.expires_at > at)
    return of_these.order_by(web_sessions.c.id.desc())


def change(connection: Connection, session_id: int, values: Mapping[str, Any]) -> None:
    """Set columns of a session."""
    sealed.change(connection, web_sessions, sealed.row_of(session_id), values=values)


def remove(connection: Connection, session_id: int) -> bool:
    """Delete a session; whether there was one."""
    return sealed.remove(connection, web_sessions, sealed.row_of(session_id)) > 0


def remove_of_user(connection: Connection, user_id: int, *, but: int | None = None) -> int:
    """Delete all sessions of a user; but: the id of one to keep. Answers how many."""
    which = [web_sessions.c.user_id == user_id]
    if but is not None:
        which.append(web_sessions.c.id != but)
    return sealed.remove(connection, web_sessions, *which)


def remove_ended(connection: Connection, at: datetime, idle_since: datetime) -> int:
    """Delete expired and idle sessions, and used proofs that would be refused for their age; answers how many sessions.

    at: now; idle_since: sessions that were last used then or before are idle.
    """
    _forget_used_proofs.run(connection, at)
    ended = sealed.remove(connection, web_sessions, web_sessions.c.expires_at <= at)
    # In two statements, each by an index, as somebody who signs in waits for this.
    idle = sealed.remove(connection, web_sessions, web_sessions.c.used_at <= idle_since)
    since_before = (web_sessions.c.used_at.is_(None), web_sessions.c.seen_at <= idle_since)
    return ended + idle + sealed.remove(connection, web_sessions, *since_before)


def of_issuer(connection: Connection, issuer: str, issuer_session: str) -> tuple[WebSession, ...]:
    """The sessions that belong to one session of an OpenID provider."""
    return tuple(_record(connection, row) for row in _of_issuer.rows(connection, issuer, issuer_session))


@prepared
def _of_issuer(issuer: str, issuer_session: str) -> Select[Any]:
    return select(web_sessions).where(web_sessions.c.issuer == issuer, web_sessions.c.issuer_session == issuer_session)


def use_once(connection: Connection, mark: bytes, expires_at: datetime) -> bool:
    """Use up a proof that may be used once; False if it was used before.

    mark: identifies the proof, such as its hash; expires_at: from when on it would be refused for its age anyway.
    """
    if _used_proof.row(connection, mark) is not None:
        return False
    inserted(connection, spent_proofs, {"mark": mark, "expires_at": expires_at})
    return True


@prepared
def _used_proof(mark: bytes) -> Select[Any]:
    return select(spent_proofs.c.id).where(spent_proofs.c.mark == mark)


@prepared
def _forget_used_proofs(at: datetime) -> Delete:
    return delete(spent_proofs).where(spent_proofs.c.expires_at <= at)


def _record(connection: Connection, row: Row, prefix: str = "") -> WebSession:
    fields = seals.unsealed(seals.part(row, web_sessions, prefix))
    del fields["secret_hash"]
    fields["seen_at"] = fields.pop("used_at") or fields["seen_at"]
    return WebSession(**fields, holds=sealed.sound(connection, web_sessions, row, prefix))
