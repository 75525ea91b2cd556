"""Browsers' sessions: begin them after a proof, find them by their secret, end them; must never store the secret
itself, nor check a proof.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.lookups import own_user, user_named
from keyrack.core.people import actors, throttle
from keyrack.core.people.rights import refuse_exceeding
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, missing
from keyrack.logs import logger
from keyrack.model import Actor, User
from keyrack.protocol.words import count
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.people import web_sessions
from keyrack.store.people.web_sessions import Visitor, WebSession

log = logger("keyrack")

CHANNEL = "console"
LONGEST_SECRET = 128
LONGEST_USER_AGENT = 255
SEEN_EVERY = timedelta(minutes=1)
PROOF_HOLDS = timedelta(minutes=10)
"""For so long after a proof somebody may do what is dangerous."""
MAX_SESSIONS = 100
"""Of one user in force at once; beyond that the oldest one ends."""


@dataclass(frozen=True, slots=True)
class NewWebSession:
    """A new session; secret: what the browser keeps, shown only this once."""

    secret: str
    visitor: Visitor


def actor_of(user: User, *, address: str, session: WebSession | None = None) -> Actor:
    """A user in a browser as the actor; session: None before one has begun."""
    return replace(
        actors.of_user(user, address=address, channel=CHANNEL), web_session_id=session.id if session else None
    )


def begin(
    work: Work,
    user: User,
    *,
    method: str,
    user_agent: str,
    issuer: str | None = None,
    issuer_session: str | None = None,
) -> NewWebSession:
    """Begin a session of a user, in the transaction that has checked the proof.

    method: of proof, such as "password"; user_agent: what the browser calls itself; issuer, issuer_session: the OpenID
    provider and its id of this sign-in.
    """
    now, settings = work.now, work.instance.settings
    web_sessions.remove_ended(work.connection, now, now - timedelta(minutes=settings.session_idle_minutes))
    sessions = web_sessions.of_user(work.connection, user.id, now)
    for old in sessions[MAX_SESSIONS - 1 :]:
        web_sessions.remove(work.connection, old.id)
    secret = secrets.token_urlsafe(32)
    session_id = web_sessions.add(
        work.connection,
        {
            "workspace_id": user.workspace_id,
            "user_id": user.id,
            "secret_hash": _hash(work.instance, secret),
            "method": method,
            "address": work.actor.address[:64],
            "browser": _printable(user_agent),
            "issuer": issuer,
            "issuer_session": issuer_session,
            "created_at": now,
            "expires_at": now + timedelta(hours=settings.session_hours),
            "proven_at": now,
            "seen_at": now,
            "used_at": now,
        },
    )
    work.record(f"{user.name} signed in to the console by {method}", target_kind="session", target_id=session_id)
    session = web_sessions.by_secret(work.connection, _hash(work.instance, secret))
    assert session is not None
    return NewWebSession(secret, session)


def find(instance: Instance, secret: str, *, address: str, in_use: bool = True) -> Visitor:
    """The session in force with this secret, and its user. in_use: this counts as a use, and the session does not end
    idle.

    Raises Refusal UNAUTHENTICATED, the same for every other secret, or THROTTLED (core/people/throttle.py).
    """
    ended = Refusal(Kind.UNAUTHENTICATED, "session-ended", "You are not signed in, or your session has ended.")
    if not (0 < len(secret) <= LONGEST_SECRET and secret.isascii()):
        raise ended
    hashed = _hash(instance, secret)

    def attempt() -> Visitor:
        visitor = instance.database.read(lambda connection: web_sessions.by_secret(connection, hashed))
        if visitor is None:
            raise ended
        return visitor

    visitor = instance.throttle.prove(throttle.TOKEN, address, hashed, attempt)
    if not _in_force(instance, visitor):
        raise ended
    if in_use:
        _note_seen(instance, visitor.session)
    return visitor


def unchanged(instance: Instance, visitors: Collection[Visitor]) -> frozenset[int]:
    """The ids of those sessions that are still in force and whose users have the same role and policies."""
    asked = {visitor.session.id: visitor.user for visitor in visitors}
    sessions = instance.database.read(lambda connection: web_sessions.by_ids(connection, asked))
    return frozenset(
        id
        for id, visitor in sessions.items()
        if _in_force(instance, visitor)
        and (visitor.user.role, visitor.user.policies) == (asked[id].role, asked[id].policies)
    )


def is_proven(instance: Instance, session: WebSession) -> bool:
    """Whether the last proof in this session is recent enough for what is dangerous."""
    return instance.now() - session.proven_at <= PROOF_HOLDS


def note_proof(instance: Instance, actor: Actor, session: WebSession) -> WebSession:
    """Note that the actor has just proved again who they are."""
    with Attempt(instance, actor, "iam:self", "prove who they are", target_kind="session") as attempt:

        def change(work: Work) -> WebSession:
            web_sessions.change(work.connection, session.id, {"proven_at": work.now})
            work.record(f"{actor.name} proved again who they are", target_id=session.id)
            return replace(session, proven_at=work.now)

        return attempt.write(change)


def own(instance: Instance, actor: Actor) -> tuple[WebSession, ...]:
    """The actor's own sessions in force, newest first."""
    with Attempt(instance, actor, "iam:self", "list their own sessions", target_kind="session") as attempt:
        return attempt.read(lambda connection: _of(instance, connection, actor.user_id or 0))


def of_user(instance: Instance, actor: Actor, name: str) -> tuple[WebSession, ...]:
    """The sessions in force of a user of the workspace by name. Raises Refusal FORBIDDEN or MISSING."""
    with Attempt(instance, actor, "people:read", "list a user's sessions", target_kind="session") as attempt:
        return attempt.read(lambda connection: _of(instance, connection, user_named(connection, actor, name).id))


def end(instance: Instance, actor: Actor, session_id: int, *, user_id: int | None = None) -> None:
    """End a session of the actor, or of another user. Raises Refusal FORBIDDEN or MISSING."""
    owner = actor.user_id if user_id is None else user_id
    own = owner == actor.user_id and owner is not None
    action = "iam:self" if own else "people:write"
    attempt = Attempt(instance, actor, action, "end a session", target_kind="session", target_id=session_id)
    with attempt:

        def change(work: Work) -> None:
            user = own_user(work, owner)
            if not own:
                refuse_exceeding(work, user)
            if session_id not in {session.id for session in web_sessions.of_user(work.connection, user.id, work.now)}:
                raise missing("session")
            web_sessions.remove(work.connection, session_id)
            work.record(f"Ended a session of {user.name} in the console", target_id=session_id)

        attempt.write(change)


def end_others(instance: Instance, actor: Actor, *, but: int) -> int:
    """End all of the actor's own sessions except one; answers how many."""
    with Attempt(instance, actor, "iam:self", "end their other sessions", target_kind="session") as attempt:

        def change(work: Work) -> int:
            ended = web_sessions.remove_of_user(work.connection, actor.user_id or 0, but=but)
            work.record(f"{actor.name} ended {count(ended, 'other session')} in the console", target_id=but)
            return ended

        return attempt.write(change)


def _of(instance: Instance, connection: Connection, user_id: int) -> tuple[WebSession, ...]:
    since = instance.now() - timedelta(minutes=instance.settings.session_idle_minutes)
    sessions = web_sessions.of_user(connection, user_id, instance.now())
    return tuple(session for session in sessions if session.holds and session.seen_at > since)


def _in_force(instance: Instance, visitor: Visitor) -> bool:
    session, now = visitor.session, instance.now()
    idle = timedelta(minutes=instance.settings.session_idle_minutes)
    ended = session.expires_at <= now or session.seen_at + idle <= now
    return session.holds and not ended and visitor.user.disabled_at is None


def _note_seen(instance: Instance, session: WebSession) -> None:
    """Note that a session is in use, at most every SEEN_EVERY; if it fails now, a later use is noted."""
    at = instance.now()
    if at - session.seen_at < SEEN_EVERY or not instance.database.can_write_now:
        return
    try:
        instance.database.write(lambda connection: web_sessions.change(connection, session.id, {"used_at": at}))
    except DatabaseUnavailable:
        log.info("use of a session not noted", session=session.id)


def _hash(instance: Instance, secret: str) -> bytes:
    # Hashed unlike tokens: a session's secret must be no token of any API, and no token a session's secret.
    return instance.key.hash_token("session of a browser\x00" + secret)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)[:LONGEST_USER_AGENT]
