"""Bearer tokens: authenticate, issue and revoke them; must never store or log a token itself."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core import cursors, validation
from keyrack.core.audit.refusals import RefusedAttempt
from keyrack.core.instance import Instance
from keyrack.core.lookups import api_token
from keyrack.core.people import actors, passwords, second_factors, throttle
from keyrack.core.people.rights import bounded_end, refuse_exceeding
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.logs import logger
from keyrack.model import Actor, Page, Project, Role, Token, User, Window, Workspace
from keyrack.store.database import DatabaseUnavailable
from keyrack.store.people import tokens, users, workspaces
from keyrack.store.people.tokens import Bearer
from keyrack.store.people.users import ClaimedIdentity

T = TypeVar("T")

log = logger("keyrack")

LONGEST_TOKEN = 4096
SHORTEST_CHOSEN = 12
FEWEST_CHARACTERS = 6
"""A chosen token has at least SHORTEST_CHOSEN characters, so many of them different."""
MAX_SIGNED_IN = 2000
"""IAM tokens of one user in force at once; the next sign-in is refused until one has ended."""
USE_NOTED_EVERY = timedelta(hours=1)
KEPT_AFTER_END = timedelta(days=1)
SECOND = "second_proof"
"""Is among the details of a token that was issued for a password and a code."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """Who wants to sign in: a user by uid, or by name with the name or uid of the workspace."""

    password: str
    user_uid: str | None = None
    user_name: str | None = None
    workspace_uid: str | None = None
    workspace_name: str | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What an IAM token is for: a project by uid or name, else the whole workspace."""

    project_uid: str | None = None
    project_name: str | None = None
    workspace_uid: str | None = None
    workspace_name: str | None = None


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A token with all that IAM shows of it; secret: "" unless it was issued just now."""

    secret: str
    token: Token
    user: User
    workspace: Workspace
    project: Project | None


def authenticate(instance: Instance, secret: str, *, address: str, channel: str) -> Actor:
    """The actor behind a bearer token in force.

    Raises Refusal UNAUTHENTICATED, the same for every other token, or THROTTLED (core/people/throttle.py).
    """
    if not secret or len(secret) > LONGEST_TOKEN:
        raise _not_in_force()
    secret_hash = instance.key.hash_token(secret)

    def attempt() -> Bearer | None:
        bearer = instance.database.read(lambda connection: tokens.bearer(connection, secret_hash))
        if bearer is None:
            raise _not_in_force()
        return _in_force(instance, bearer)

    bearer = instance.throttle.prove(throttle.TOKEN, address, secret_hash, attempt)
    if bearer is None:
        # A token that has ended is no guess: programs that still send it must not use up the tries of their address.
        raise _not_in_force()
    _note_use(instance, bearer.token)
    return instance.token_actors.of(bearer.user, bearer.token, address=address, channel=channel)


def _note_use(instance: Instance, token: Token) -> None:
    """Note that a token is in use, at most every USE_NOTED_EVERY; if it fails now, a later use is noted."""
    at = instance.now()
    # A time in the future was noted before the clock was set back, and is replaced.
    if token.last_used_at is not None and timedelta(0) <= at - token.last_used_at < USE_NOTED_EVERY:
        return
    if not instance.database.can_write_now:
        return  # a read must not wait for writers
    try:
        instance.database.write(lambda connection: tokens.change_token(connection, token.id, {"last_used_at": at}))
    except DatabaseUnavailable:
        log.info("use of a token not noted", token=token.id)


def _not_in_force() -> Refusal:
    return Refusal(Kind.UNAUTHENTICATED, "token-not-in-force", "This token is not in force.")


def _in_force(instance: Instance, bearer: Bearer) -> Bearer | None:
    return bearer if bearer.user.disabled_at is None and bearer.token.is_in_force(instance.now()) else None


def sign_in(instance: Instance, who: SignIn, scope: Scope, *, address: str, code: str | None = None) -> SignedIn:
    """Issue an IAM token for a password; code: of an app, for users who need a second factor.

    Raises Refusal UNAUTHENTICATED, after the same work and so the same time whether there is such a user or not,
    FORBIDDEN for a foreign scope, LIMIT, or THROTTLED (core/people/throttle.py).
    """

    def issue(work: Work, user: User) -> SignedIn:
        second = second_factors.check(work, user, code, address=address)
        return _issue_iam_token(work, user, scope, second=second)

    return by_password(instance, who, issue, address=address, channel="iam")


def by_password(instance: Instance, who: SignIn, then: Callable[[Work, User], T], *, address: str, channel: str) -> T:
    """The result of `then` for the user who has this password; `then` runs in the transaction that checks it again.

    Raises Refusal UNAUTHENTICATED or THROTTLED as sign_in does, and what `then` raises.
    """
    claimed = instance.database.read(
        lambda connection: users.claimed_identity(
            connection,
            user_uid=who.user_uid,
            user_name=who.user_name,
            workspace_uid=who.workspace_uid,
            workspace_name=who.workspace_name,
        )
    )
    return instance.throttle.prove(
        throttle.PASSWORD,
        address,
        _account(who, claimed),
        lambda: _by_password(instance, claimed, who.password, then, address, channel),
    )


def _account(who: SignIn, claimed: ClaimedIdentity) -> bytes:
    """The account's name for the throttle: the same however it is named, and made alike where there is none."""
    if claimed.workspace_id is not None:
        return throttle.name_of("account", str(claimed.workspace_id), claimed.user_name or who.user_name)
    return throttle.name_of("claimed", who.user_uid, who.workspace_uid, who.workspace_name, who.user_name)


def _by_password(
    instance: Instance,
    claimed: ClaimedIdentity,
    password: str,
    then: Callable[[Work, User], T],
    address: str,
    channel: str,
) -> T:
    wrong = Refusal(
        Kind.UNAUTHENTICATED,
        "sign-in-failed",
        "The user name, the account (domain) name or the password is wrong.",
    )
    hashed, user = claimed.password_hash, None
    # From here to the refusal nothing depends on whether there is such a user.
    if passwords.verify(hashed, password):
        user = instance.database.read(lambda connection: users.user(connection, claimed.user_id or 0))
    if user is None or user.disabled_at is not None:
        named = (claimed.workspace_id, claimed.user_id, claimed.user_name)
        stranger = actors.stranger(*named, address=address, channel=channel)
        refused = RefusedAttempt(stranger, "iam:self", wrong.code, "sign in", "token")
        instance.refusals.record(instance.database, refused, instance.now(), later=True)
        raise wrong
    actor = actors.of_user(user, address=address, channel=channel)
    attempt = Attempt(instance, actor, "iam:self", "sign in", target_kind="token", target_id=None)
    with attempt:

        def run(work: Work) -> T:
            current = users.user(work.connection, user.id)
            if (
                current is None
                or current.disabled_at is not None
                or users.password_hash(work.connection, user.id) != hashed
            ):
                # The password was changed while it was checked, which cannot end a token that is not issued yet.
                raise wrong
            return then(work, current)

        return attempt.write(run)


def _issue_iam_token(work: Work, user: User, scope: Scope, *, second: bool) -> SignedIn:
    tokens.remove_dead_tokens(work.connection, work.now - KEPT_AFTER_END, user_id=user.id)
    if tokens.count_iam_tokens(work.connection, user.id, work.now) >= MAX_SIGNED_IN:
        words = f"This user has {MAX_SIGNED_IN} tokens in force, which is the most; revoke some, or use them."
        raise Refusal(Kind.LIMIT, "too-many-tokens", words)
    secret = secrets.token_urlsafe(48)
    workspace = workspaces.workspace(work.connection, user.workspace_id)
    project = _project(work, workspace, scope)
    token_id = tokens.add_token(
        work.connection,
        user,
        kind="iam",
        name="IAM token",
        secret_hash=work.instance.key.hash_token(secret),
        scopes=("*",),
        details={"project": project.uid if project else None, **({SECOND: True} if second else {})},
        at=work.now,
        expires_at=work.now + timedelta(hours=work.instance.settings.token_hours),
    )
    work.record(f"{user.name} signed in", target_id=token_id)
    bearer = tokens.bearer(work.connection, work.instance.key.hash_token(secret))
    assert bearer is not None
    return SignedIn(secret=secret, token=bearer.token, user=user, workspace=workspace, project=project)


def describe(instance: Instance, bearer: Bearer) -> SignedIn:
    """All that IAM shows of a token in force."""

    def question(connection: Connection) -> tuple[Workspace, Project | None]:
        uid = bearer.token.details.get("project")
        project = workspaces.project_by_uid(connection, uid) if uid else None
        return workspaces.workspace(connection, bearer.user.workspace_id), project

    workspace, project = instance.database.read(question)
    return SignedIn(secret="", token=bearer.token, user=bearer.user, workspace=workspace, project=project)


def inspect(instance: Instance, actor: Actor, secret: str) -> SignedIn:
    """All that IAM shows of a token in force: of the actor, or of another user of the workspace.

    Raises Refusal FORBIDDEN, or MISSING for a token that is not in force or of another workspace.
    """
    bearer = _own(instance, actor, secret)
    action = "iam:self" if bearer.user.id == actor.user_id else "people:read"
    with Attempt(instance, actor, action, "validate a token", target_kind="token", target_id=bearer.token.id):
        return describe(instance, bearer)


def revoke_secret(instance: Instance, actor: Actor, secret: str) -> None:
    """Revoke the token in force with this secret. Raises Refusal FORBIDDEN or MISSING, as inspect does."""
    revoke(instance, actor, _own(instance, actor, secret))


def _own(instance: Instance, actor: Actor, secret: str) -> Bearer:
    unknown = Refusal(Kind.MISSING, "token-missing", "Could not find token.")
    if not secret or len(secret) > LONGEST_TOKEN:
        raise unknown
    secret_hash = instance.key.hash_token(secret)

    def attempt() -> Bearer:
        bearer = instance.database.read(lambda connection: tokens.bearer(connection, secret_hash))
        if bearer is None:
            raise unknown
        return bearer

    # The answer tells whether there is such a token, so guesses cost tries here too.
    bearer = instance.throttle.prove(
        throttle.TOKEN, actor.address, secret_hash, attempt, is_guess=lambda error: error is unknown
    )
    if bearer.user.workspace_id != actor.workspace_id or _in_force(instance, bearer) is None:
        raise unknown
    return bearer


def create(
    instance: Instance,
    actor: Actor,
    owner: User,
    *,
    name: str,
    scopes: Iterable[str],
    expires_at: datetime | None = None,
    secret: str | None = None,
) -> tuple[str, int]:
    """Create an API token of a user; answers the secret, shown only this once, and the token's id.

    scopes, expires_at: cut to the actor's own; secret: a chosen one, see strong(), None for a random one. Raises
    Refusal INVALID, or FORBIDDEN for a user who may do more than the actor.
    """
    attempt = Attempt(instance, actor, "people:write", "create a token", target_kind="token")
    with attempt:
        title = validation.new_name(name)
        bounds = policy.both(policy.fitting(scopes, field="scopes"), actor.scopes)
        end = bounded_end(actor, validation.end(instance.now(), expires_at))
        chosen = f"kr_{secrets.token_urlsafe(32)}" if secret is None else strong(secret)

        def change(work: Work) -> tuple[str, int]:
            refuse_exceeding(work, owner)
            token_id = tokens.add_token(
                work.connection,
                owner,
                kind="api",
                name=title,
                secret_hash=instance.key.hash_token(chosen),
                scopes=bounds,
                details={"project": actor.project} if actor.project else {},
                at=work.now,
                expires_at=end,
            )
            work.record(f"Created token {title} of {owner.name}", target_id=token_id)
            return chosen, token_id

        return attempt.write(change)


def strong(secret: str) -> str:
    """A chosen token that is hard to guess. Raises Refusal INVALID with what to do."""
    if not SHORTEST_CHOSEN <= len(secret) <= LONGEST_TOKEN or len(set(secret)) < FEWEST_CHARACTERS:
        words = (
            f"A chosen token has {SHORTEST_CHOSEN} to {LONGEST_TOKEN} characters, at least {FEWEST_CHARACTERS} "
            "different ones; make one, for example with: openssl rand -hex 32"
        )
        raise Refusal(Kind.INVALID, "token-too-short", words, field="token")
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise invalid("token", "A token is written in printable ASCII without blanks, as it travels in a header.")
    return secret


def change(
    instance: Instance, actor: Actor, token_id: int, *, name: str, scopes: Iterable[str], expires_at: datetime | None
) -> None:
    """Change name, scopes and end of an API token, cut to the actor's own; expires_at: None for no end.

    Raises Refusal MISSING, INVALID or FORBIDDEN.
    """
    attempt = Attempt(instance, actor, "people:write", "change a token", target_kind="token", target_id=token_id)
    with attempt:
        title = validation.text(name, field="name")
        wanted = policy.patterns(scopes, field="scopes")
        bounds = policy.both(wanted, actor.scopes)
        end = bounded_end(actor, validation.end(instance.now(), expires_at))

        def run(work: Work) -> None:
            bearer = api_token(work.connection, actor, token_id)
            refuse_exceeding(work, bearer.user)
            if title != bearer.token.name:
                validation.new_name(name)
            policy.fitting(wanted, field="scopes", held=bearer.token.scopes)
            tokens.change_token(work.connection, token_id, {"name": title, "scopes": list(bounds), "expires_at": end})
            old = bearer.token
            words = (
                f"Changed token {old.name} of {bearer.user.name}: name {title}, scopes {', '.join(bounds) or 'none'}"
            )
            before = f"before: {old.name}, {', '.join(old.scopes) or 'none'}"
            ends = "" if end == old.expires_at else f", end {'none' if end is None else f'{end:%Y-%m-%dT%H:%M:%SZ}'}"
            work.record(f"{words}{ends}; {before}", target_id=token_id, level="warning")

        attempt.write(run)


def find(
    instance: Instance, actor: Actor, *, offset: int = 0, limit: int = 50, cursor: str | None = None
) -> Page[Bearer]:
    """A page of the API tokens of the actor's workspace that are not revoked, oldest first.

    cursor: of the page before, "" for the first one; takes the place of offset. Raises Refusal FORBIDDEN, or INVALID
    for a malformed cursor.
    """
    with Attempt(instance, actor, "people:read", "list tokens", target_kind="token") as attempt:
        window = Window(limit, offset, cursors.place(cursor, int))
        return attempt.read(lambda connection: tokens.find_api_tokens(connection, actor.workspace_id, window))


def get(instance: Instance, actor: Actor, token_id: int) -> Bearer:
    """An API token of the actor's workspace that is not revoked. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "people:read", "see a token", target_kind="token", target_id=token_id) as attempt:
        return attempt.read(lambda connection: api_token(connection, actor, token_id))


def own(instance: Instance, actor: Actor) -> tuple[Bearer, ...]:
    """The actor's own API tokens that are not revoked, oldest first. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, "iam:self", "list their own tokens", target_kind="token") as attempt:

        def question(connection: Connection) -> tuple[Bearer, ...]:
            user = None if actor.user_id is None else users.user(connection, actor.user_id)
            held = () if user is None else tokens.find_tokens(connection, user.id)
            return tuple(Bearer(one, user) for one in held if user and one.kind == "api" and one.revoked_at is None)

        return attempt.read(question)


def find_everywhere(
    instance: Instance, actor: Actor, *, cursor: str | None = None, limit: int = 50
) -> tuple[Page[Bearer], dict[int, str]]:
    """A page of the API tokens of all workspaces that are not revoked, oldest first, and the workspaces' names by id.

    For the operator, and for owners of the first workspace. cursor: of the page before, "" or None for the first one.
    Raises Refusal FORBIDDEN, or INVALID for a malformed cursor.
    """
    aim = "list the tokens of all workspaces"
    with Attempt(instance, actor, "people:read", aim, target_kind="token") as attempt:
        window = Window(limit, after=cursors.place(cursor or "", int))

        def question(connection: Connection) -> tuple[Page[Bearer], dict[int, str]]:
            names = workspaces.workspace_names(connection)
            operator = actor.user_id is None
            if not operator and (actor.role is not Role.OWNER or actor.workspace_id != next(iter(names), None)):
                words = "Only the operator, and owners of the first workspace, see the tokens of all workspaces."
                raise Refusal(Kind.FORBIDDEN, "not-the-instance-owner", words)
            return tokens.tokens_of_instance(connection, window), names

        return attempt.read(question)


def revoke_id(instance: Instance, actor: Actor, token_id: int) -> Bearer:
    """Revoke an API token of the actor's workspace by its id, and answer it as it was.

    Raises Refusal MISSING or FORBIDDEN.
    """
    bearer = instance.database.read(lambda connection: tokens.api_token(connection, actor.workspace_id, token_id))
    if bearer is None or bearer.token.revoked_at is not None:
        with Attempt(instance, actor, "people:write", "revoke a token", target_kind="token"):
            raise missing("token")
    revoke(instance, actor, bearer)
    return bearer


def of_user(instance: Instance, user_id: int, *, name: str) -> list[Bearer]:
    """The tokens of a user by this name that are not revoked, for Keyrack's own use."""

    def question(connection: Connection) -> list[Bearer]:
        user = users.user(connection, user_id)
        return [
            Bearer(token, user)
            for token in tokens.find_tokens(connection, user_id)
            if user is not None and token.name == name and token.revoked_at is None
        ]

    return instance.database.read(question)


def revoke(instance: Instance, actor: Actor, bearer: Bearer) -> None:
    """Revoke a token of the actor, or of another user of the workspace. Raises Refusal MISSING or FORBIDDEN."""
    own = bearer.user.id == actor.user_id
    action = "iam:self" if own else "people:write"
    attempt = Attempt(instance, actor, action, "revoke a token", target_kind="token", target_id=bearer.token.id)
    with attempt:
        if bearer.user.workspace_id != actor.workspace_id:
            raise missing("token")

        def change(work: Work) -> None:
            if not own:
                refuse_exceeding(work, bearer.user)
            tokens.revoke_token(work.connection, bearer.token.id, work.now)
            work.record(f"Revoked token {bearer.token.name} of {bearer.user.name}", target_id=bearer.token.id)

        attempt.write(change)


def _project(work: Work, workspace: Workspace, scope: Scope) -> Project | None:
    foreign = Refusal(Kind.FORBIDDEN, "scope-foreign", "The scope names a project or account that is not yours.")
    if scope.workspace_uid not in (None, workspace.uid) or scope.workspace_name not in (None, workspace.name):
        raise foreign
    if scope.project_uid is None and scope.project_name is None:
        return None
    for project in workspaces.find_projects(work.connection, workspace.id):
        if scope.project_uid in (None, project.uid) and scope.project_name in (None, project.name):
            return project
    raise foreign
