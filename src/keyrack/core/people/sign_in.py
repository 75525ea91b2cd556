"""Signing in with a browser: whom a name means, which proofs it takes, and the session; must store no secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection

from keyrack.core.audit.refusals import RefusedAttempt
from keyrack.core.instance import Instance
from keyrack.core.people import browser_state, passkeys, second_factors, throttle, tokens, web_sessions
from keyrack.core.people.passkeys import Browser
from keyrack.core.people.tokens import SignIn
from keyrack.core.people.web_sessions import NewWebSession
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, User
from keyrack.store.people import users
from keyrack.store.people import workspaces as workspace_rows

LONGEST_NAME = 1024
SECOND_LASTS = timedelta(minutes=10)
# Browsers carry texts with it through an upgrade, so it keeps its old spelling.
PURPOSE = "second proof"


@dataclass(frozen=True, slots=True)
class PendingSignIn:
    """The password was right and a second factor is needed; carried: what the browser sends back with that."""

    carried: str


def by_password(
    instance: Instance, name: str, password: str, *, address: str, user_agent: str
) -> NewWebSession | PendingSignIn:
    """Begin a session by a user name and a password, or say that a second factor is needed.

    name: of a user of the first workspace, or "name@workspace". Raises Refusal UNAUTHENTICATED, whatever was wrong with
    the same words and after the same work, or THROTTLED.
    """

    def begin(work: Work, user: User) -> NewWebSession | PendingSignIn:
        if second_factors.is_asked(work, user):
            work.no_event("the second factor is still asked")
            proven = instance.key.hash_token(second_factors.held_password(work, user) or "").hex()
            state = {"user": user.id, "proven": proven}
            return PendingSignIn(browser_state.pack(instance, PURPOSE, state, lasts=SECOND_LASTS))
        return web_sessions.begin(work, user, method="password", user_agent=user_agent)

    who = instance.database.read(lambda connection: _named(connection, name[:LONGEST_NAME], password))
    return tokens.by_password(instance, who, begin, address=address, channel=web_sessions.CHANNEL)


def pending(instance: Instance, text: str) -> int | None:
    """The id of the user whose password was right; None where it was not, or too long ago."""
    state = browser_state.unpack(instance, PURPOSE, text)
    return None if state is None else int(state["user"])


def by_code(instance: Instance, text: str, code: str, *, address: str, user_agent: str) -> NewWebSession:
    """Begin a session by a code after a password; text: PendingSignIn.carried.

    Raises Refusal UNAUTHENTICATED or THROTTLED.
    """
    return _second(
        instance, text, address, user_agent, lambda work, user: f"password and {second_factors.use(work, user, code)}"
    )


def by_second_passkey(
    instance: Instance, text: str, browser: Browser, answer: str, *, address: str, user_agent: str
) -> NewWebSession:
    """Begin a session by a passkey after a password; as by_code."""

    def check(work: Work, user: User) -> str:
        if passkeys.use(work, browser, answer, alone=False).id != user.id:
            raise Refusal(Kind.UNAUTHENTICATED, "passkey-wrong", "This passkey is somebody else's.", field="answer")
        return "password and passkey"

    return _second(instance, text, address, user_agent, check)


def by_passkey(instance: Instance, browser: Browser, answer: str, *, address: str, user_agent: str) -> NewWebSession:
    """Begin a session by a passkey alone. Raises Refusal UNAUTHENTICATED or THROTTLED."""
    wrong = Refusal(Kind.UNAUTHENTICATED, "passkey-wrong", "This passkey does not open anything here.", field="answer")

    def attempt() -> NewWebSession:
        try:
            number = passkeys.owner(instance, answer)
        except Refusal:
            raise wrong from None
        user = None if number is None else instance.database.read(lambda connection: users.user(connection, number))
        if user is None:
            raise wrong
        return _begin(instance, user, address, user_agent, lambda work: _alone(work, browser, answer))

    return instance.throttle.prove(throttle.TOKEN, address, throttle.name_of("passkey", answer[:200]), attempt)


def _alone(work: Work, browser: Browser, answer: str) -> str:
    passkeys.use(work, browser, answer, alone=True)
    return "passkey"


def _second(
    instance: Instance, text: str, address: str, user_agent: str, check: Callable[[Work, User], str]
) -> NewWebSession:
    ended = Refusal(Kind.UNAUTHENTICATED, "sign-in-ended", "This took too long; begin with your password again.")
    state = browser_state.unpack(instance, PURPOSE, text)
    if state is None:
        raise ended
    user = instance.database.read(lambda connection: users.user(connection, int(state["user"])))
    if user is None:
        raise ended

    def checked(work: Work) -> str:
        password_hash = second_factors.held_password(work, user) or ""
        if instance.key.hash_token(password_hash).hex() != state["proven"]:
            raise ended
        return check(work, user)

    account = throttle.name_of("second", str(user.id))
    return instance.throttle.prove(
        throttle.PASSWORD, address, account, lambda: _begin(instance, user, address, user_agent, checked)
    )


def _begin(
    instance: Instance, user: User, address: str, user_agent: str, check: Callable[[Work], str]
) -> NewWebSession:
    """Begin a session of a user; check: checks the proof within the transaction, and answers its name."""
    actor = web_sessions.actor_of(user, address=address)
    wrong = Refusal(Kind.UNAUTHENTICATED, "sign-in-failed", "Nobody is signed in by this.")
    if user.disabled_at is not None:
        _refused(instance, actor, wrong)
        raise wrong
    with Attempt(instance, actor, "iam:self", "sign in", target_kind="session") as attempt:

        def run(work: Work) -> NewWebSession:
            current = users.user(work.connection, user.id)
            if current is None or current.disabled_at is not None:
                raise wrong
            return web_sessions.begin(work, current, method=check(work), user_agent=user_agent)

        return attempt.write(run)


def _refused(instance: Instance, actor: Actor, refusal: Refusal) -> None:
    refused = RefusedAttempt(actor, "iam:self", refusal.code, "sign in", "session")
    instance.refusals.record(instance.database, refused, instance.now(), later=True)


def _named(connection: Connection, name: str, password: str) -> SignIn:
    """Which user a name means. User names may hold an @, so the part after it counts only if a workspace has it."""
    workspaces = workspace_rows.workspaces_by_name(connection)
    user, _, workspace = name.rpartition("@")
    if len(workspaces) > 1 and user and workspace in {one.name for one in workspaces}:
        return SignIn(password=password, user_name=user, workspace_name=workspace)
    first = min(workspaces, key=lambda one: one.id, default=None)
    return SignIn(password=password, user_name=name, workspace_name=first.name if first else "")
