"""API tokens of one's own and of others: make one, and replace one by a new secret; must give no more than is held."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from keyrack import policy
from keyrack.core import validation
from keyrack.core.instance import Instance
from keyrack.core.lookups import api_token, is_oneself, own_user, user_named
from keyrack.core.people.rights import refuse_disabled, refuse_exceeding
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, Role, Token, User, has_ended
from keyrack.store.people import tokens
from keyrack.store.people.tokens import Bearer

MOST_TOKENS = 500
"""API tokens of one user that are not revoked; ended ones count until they are tidied away."""
LONGEST_OVERLAP = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class NewApiToken:
    """A token: its secret, shown this once, "" where it was there already; replaced: the one whose place it takes, with
    its end, if it does.
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
    """Make an API token of the actor's own, or of a user by name.

    scopes and end are bounded by the actor's own. Raises Refusal INVALID, MISSING, LIMIT, or FORBIDDEN for a user who
    may more than the actor.
    """
    action = _action(actor, user)
    with Attempt(instance, actor, action, "create a token", target_kind="token") as attempt:
        title = validation.new_name(name)
        wanted = policy.fitting(scopes, field="scopes")
        if not wanted:
            raise invalid("scopes", "Name what the token may do, such as servers:read, or * for all that you may.")
        bounds = policy.both(wanted, actor.scopes)
        end = _bounded(actor, validation.end(instance.now(), expires_at, duration=duration))

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
    """The token in force that a user has by this name, the newest of them, made where there is none; as make.

    expires_at: None leaves the end of one that is there; a span counts where one is made. Raises Refusal TAKEN where it
    is for other things, or ends at another time, and as make does.
    """
    action = _action(actor, user)
    with Attempt(instance, actor, action, "set up a token", target_kind="token") as attempt:
        title = validation.text(name, field="name")
        wanted = policy.fitting(scopes, field="scopes")
        # A span begins when a token is made: of one that is there it says nothing.
        at = None if expires_at is None else validation.lifetime(expires_at, field="expires_at").at
        end = None if at is None else _bounded(actor, at)

        def change(work: Work) -> NewApiToken:
            owner = _owner(work, user)
            held = _in_force(work, owner, title)
            if not held or owner.disabled_at is not None:
                work.no_event("making it leaves one")
                return make(within(work), actor, name=title, scopes=wanted, expires_at=expires_at, user=user)
            stands = held[-1]
            if set(stands.scopes) != set(policy.both(wanted, actor.scopes)) or end not in (None, stands.expires_at):
                words = f"Token {stands.id} of {owner.name} has this name, with other scopes or another end; revoke it."
                raise Refusal(Kind.TAKEN, "terms-differ", words)
            work.no_event("it stands already")
            bearer = tokens.api_token(work.connection, actor.workspace_id, stands.id)
            assert bearer is not None
            return NewApiToken("", bearer)

        return attempt.write(change)


def rotate(instance: Instance, actor: Actor, token_id: int, *, overlap: object = "0s") -> NewApiToken:
    """Give an API token a new secret, with the same scopes and end; the old one goes on for a while.

    overlap: for how long, such as 30min, 24h or 7d; 0s: it ends at once. Raises Refusal INVALID, MISSING, or FORBIDDEN
    where the token may more than the proof that asks, as its secret would be told to whoever holds that.
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
                work, bearer.user, old.name, old.scopes, _bounded(actor, old.expires_at), dict(old.details)
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
    """Nothing when the actor may rotate this token; raises Refusal MISSING or FORBIDDEN as rotate() does first."""
    with _rotating(instance, actor, token_id) as attempt:
        attempt.read(lambda connection: api_token(connection, actor, token_id))


def _rotating(instance: Instance, actor: Actor, token_id: int) -> Attempt:
    bearer = instance.database.read(lambda connection: tokens.api_token(connection, actor.workspace_id, token_id))
    own = bearer is not None and bearer.user.id == actor.user_id
    action = "iam:self" if own else "people:write"
    return Attempt(instance, actor, action, "rotate a token", target_kind="token", target_id=token_id)


def span_of(value: object) -> timedelta:
    """A span as lifetimes.read takes it, at most LONGEST_OVERLAP, or 0s; raises Refusal INVALID with what to write."""
    if value == "0s":
        return timedelta()
    span = validation.lifetime(value, field="overlap").span
    if span is None:
        raise invalid("overlap", "overlap takes a span such as 30min, 24h or 7d.")
    if span > LONGEST_OVERLAP:
        raise invalid("overlap", f"An overlap is at most {LONGEST_OVERLAP.days} days; make a new token instead.")
    return span


def _action(actor: Actor, name: str | None) -> str:
    """What making a token for the user of this name takes, None for the actor."""
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
    """The API tokens of a user by this name that open anything, oldest first."""
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
    if len(held) >= MOST_TOKENS:
        words = f"{owner.name} has {MOST_TOKENS} tokens, which is the most; revoke some first."
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
    made = tokens.api_token(work.connection, owner.workspace_id, number)
    assert made is not None
    return secret, made


def _bounded(actor: Actor, end: datetime | None) -> datetime | None:
    """The end, not after that of the proof that asks."""
    if actor.ends_at is not None and (end is None or end > actor.ends_at):
        return actor.ends_at
    return end


def _refuse_wider(actor: Actor, token: Token) -> None:
    wide = policy.actions(Role.OWNER, (), token.scopes) - policy.actions(Role.OWNER, (), actor.scopes)
    if wide or (actor.project and token.details.get("project") != actor.project):
        words = "This token may do what you may not with the proof that you sent; use the token itself, or a wider one."
        raise Refusal(Kind.FORBIDDEN, "exceeds-own-rights", words)


def _ending(end: datetime | None) -> str:
    return "without end" if end is None else f"until {end:%Y-%m-%dT%H:%M:%SZ}"
