"""API tokens: make one for the actor or another user, or replace its secret; must give no more than the actor has."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from keyrack import policy
from keyrack.core import validation
from keyrack.core.instance import Instance
from keyrack.core.lookups import api_token, is_oneself, own_user, user_named
from keyrack.core.people.rights import bounded_end, refuse_disabled, refuse_exceeding
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, Role, Token, User, has_ended
from keyrack.store.people import tokens
from keyrack.store.people.tokens import Bearer

MAX_TOKENS = 500
"""API tokens of one user that are not revoked; ended ones count until retention deletes them."""
LONGEST_OVERLAP = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class NewApiToken:
    """A token, and its secret, which is shown only this once, "" where the token was there already.

    replaced: after rotate() the old token with its new end, else None.
    """

    secret: str
    bearer: Bearer
    replaced: Token | None = None


def make(
    instance: Instance,
    actor: Actor,
    *,
    name: object,
    scopes: Iterable[object],
    expires_at: object = None,
    duration: object = None,
    user: str | None = None,
) -> NewApiToken:
    """Make an API token for the actor, or for a user given by name.

    scopes and end are cut to the actor's own. Raises Refusal INVALID, MISSING, LIMIT, or FORBIDDEN for a user who may
    do more than the actor.
    """
    action = _action(actor, user)
    with Attempt(instance, actor, action, "create a token", target_kind="token") as attempt:
        title = validation.new_name(name)
        wanted = policy.fitting(scopes, field="scopes")
        if not wanted:
            raise invalid("scopes", "Name what the token may do, such as servers:read, or * for all that you may.")
        bounds = policy.both(wanted, actor.scopes)
        end = bounded_end(actor, validation.end(instance.now(), expires_at, duration=duration))

        def change(work: Work) -> NewApiToken:
            owner = _owner(work, user)
            refuse_disabled(owner)
            if owner.id != actor.user_id:
                refuse_exceeding(work, owner)
            secret, new = _add(work, owner, title, bounds, end, {"project": actor.project} if actor.project else {})
            work.record(
                f"Created token {title} of {owner.name}, for {', '.join(bounds) or 'nothing'}, {_ending(end)}",
                target_id=new.token.id,
            )
            return NewApiToken(secret, new)

        return attempt.write(change)


def put(
    instance: Instance,
    actor: Actor,
    *,
    name: object,
    scopes: Iterable[object],
    expires_at: object = None,
    user: str | None = None,
) -> NewApiToken:
    """The newest token in force that a user has by this name, made now where there is none; as make.

    expires_at: None leaves the end of an existing one; a span counts only for a new one. Raises Refusal TAKEN where
    there is one with other scopes or another end, and as make does.
    """
    action = _action(actor, user)
    with Attempt(instance, actor, action, "set up a token", target_kind="token") as attempt:
        title = validation.text(name, field="name")
        wanted = policy.fitting(scopes, field="scopes")
        # A span begins when a token is made, so it says nothing about one that is there.
        at = None if expires_at is None else validation.lifetime(expires_at, field="expires_at").at
        end = None if at is None else bounded_end(actor, at)

        def change(work: Work) -> NewApiToken:
            owner = _owner(work, user)
            in_force = _in_force(work, owner, title)
            if not in_force or owner.disabled_at is not None:
                work.no_event("making it leaves one")
                return make(within(work), actor, name=title, scopes=wanted, expires_at=expires_at, user=user)
            newest = in_force[-1]
            if set(newest.scopes) != set(policy.both(wanted, actor.scopes)) or end not in (None, newest.expires_at):
                words = f"Token {newest.id} of {owner.name} has this name, with other scopes or another end; revoke it."
                raise Refusal(Kind.TAKEN, "terms-differ", words)
            work.no_event("it is there already")
            bearer = tokens.api_token(work.connection, actor.workspace_id, newest.id)
            assert bearer is not None
            return NewApiToken("", bearer)

        return attempt.write(change)


def rotate(instance: Instance, actor: Actor, token_id: int, *, overlap: object = "0s") -> NewApiToken:
    """Give an API token a new secret, with the same scopes and end; the old one goes on for a while.

    overlap: for how long, such as 30min, 24h or 7d; 0s: it ends at once. Raises Refusal INVALID, MISSING, or FORBIDDEN
    where the token may do more than the proof of the caller, who gets the secret.
    """
    with _rotating(instance, actor, token_id) as attempt:
        span = span_of(overlap)

        def change(work: Work) -> NewApiToken:
            bearer = api_token(work.connection, actor, token_id)
            old = bearer.token
            if bearer.user.disabled_at is not None or has_ended(old.expires_at, work.now):
                raise Refusal(Kind.INVALID, "token-ended", "This token has ended; make a new one.")
            if bearer.user.id != actor.user_id:
                refuse_exceeding(work, bearer.user)
            _refuse_wider(actor, old)
            ends = work.now + span if old.expires_at is None else min(old.expires_at, work.now + span)
            secret, new = _add(
                work, bearer.user, old.name, old.scopes, bounded_end(actor, old.expires_at), dict(old.details)
            )
            values = {"expires_at": ends} if span else {"expires_at": ends, "revoked_at": work.now}
            tokens.change_token(work.connection, old.id, values)
            work.record(
                f"Rotated token {old.name} of {bearer.user.name}: {new.token.id} takes the place of {old.id}, which "
                f"ends at {ends:%Y-%m-%dT%H:%M:%SZ}",
                target_id=new.token.id,
                details={"replaced": old.id},
            )
            replaced = tokens.api_token(work.connection, actor.workspace_id, old.id)
            return NewApiToken(secret, new, None if replaced is None else replaced.token)

        return attempt.write(change)


def may_rotate(instance: Instance, actor: Actor, token_id: int) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not rotate this token, as rotate() does first."""
    with _rotating(instance, actor, token_id) as attempt:
        attempt.read(lambda connection: api_token(connection, actor, token_id))


def _rotating(instance: Instance, actor: Actor, token_id: int) -> Attempt:
    bearer = instance.database.read(lambda connection: tokens.api_token(connection, actor.workspace_id, token_id))
    own = bearer is not None and bearer.user.id == actor.user_id
    action = "iam:self" if own else "people:write"
    return Attempt(instance, actor, action, "rotate a token", target_kind="token", target_id=token_id)


def span_of(value: object) -> timedelta:
    """An overlap as a span: as lifetimes.read takes it, at most LONGEST_OVERLAP, or 0s. Raises Refusal INVALID."""
    if value == "0s":
        return timedelta()
    span = validation.lifetime(value, field="overlap").span
    if span is None:
        raise invalid("overlap", "overlap takes a span such as 30min, 24h or 7d.")
    if span > LONGEST_OVERLAP:
        raise invalid("overlap", f"An overlap is at most {LONGEST_OVERLAP.days} days; make a new token instead.")
    return span


def _action(actor: Actor, name: str | None) -> str:
    """The action of making a token for the user of this name, None for the actor."""
    own = actor.user_id is not None if name is None else is_oneself(actor, name)
    return "iam:self" if own else "people:write"


def _owner(work: Work, name: str | None) -> User:
    actor = work.actor
    if name is None:
        if actor.user_id is None:
            raise invalid("user", "Say whose token it is to be.")
        return own_user(work, actor.user_id)
    return user_named(work.connection, actor, name)


def _in_force(work: Work, owner: User, name: str) -> list[Token]:
    """The API tokens in force of a user by this name, oldest first."""
    return [
        one
        for one in tokens.find_tokens(work.connection, owner.id)
        if (one.kind, one.name) == ("api", name) and one.is_in_force(work.now)
    ]


def _add(
    work: Work,
    owner: User,
    name: str,
    scopes: Iterable[str],
    end: datetime | None,
    details: dict[str, object],
) -> tuple[str, Bearer]:
    held = [one for one in tokens.find_tokens(work.connection, owner.id) if one.kind == "api" and not one.revoked_at]
    if len(held) >= MAX_TOKENS:
        words = f"{owner.name} has {MAX_TOKENS} tokens, which is the most; revoke some first."
        raise Refusal(Kind.LIMIT, "too-many-tokens", words)
    secret = f"kr_{secrets.token_urlsafe(32)}"
    number = tokens.add_token(
        work.connection,
        owner,
        kind="api",
        name=name,
        secret_hash=work.instance.key.hash_token(secret),
        scopes=scopes,
        details=details,
        at=work.now,
        expires_at=end,
    )
    bearer = tokens.api_token(work.connection, owner.workspace_id, number)
    assert bearer is not None
    return secret, bearer


def _refuse_wider(actor: Actor, token: Token) -> None:
    wide = policy.actions(Role.OWNER, (), token.scopes) - policy.actions(Role.OWNER, (), actor.scopes)
    if wide or (actor.project and token.details.get("project") != actor.project):
        words = "This token may do what you may not with the proof that you sent; use the token itself, or a wider one."
        raise Refusal(Kind.FORBIDDEN, "exceeds-own-rights", words)


def _ending(end: datetime | None) -> str:
    return "without end" if end is None else f"until {end:%Y-%m-%dT%H:%M:%SZ}"
