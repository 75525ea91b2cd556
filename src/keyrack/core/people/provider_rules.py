"""Who the people of an OpenID provider are here: creates users, gives roles and groups by rules, begins sessions; must
read no token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection

from keyrack.core.audit.refusals import RefusedAttempt
from keyrack.core.instance import Instance
from keyrack.core.lookups import own_user
from keyrack.core.people import actors, groups, users, web_sessions
from keyrack.core.people.actors import system_actor
from keyrack.core.people.web_sessions import NewWebSession
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Role, User
from keyrack.protocol.words import count
from keyrack.setting_values import provider_rules
from keyrack.ssh.names import plain_blanks
from keyrack.store.people import authenticators, workspaces
from keyrack.store.people import groups as group_rows
from keyrack.store.people import users as user_rows
from keyrack.store.people import web_sessions as session_rows

ANYBODY = "*"
# Where several rules give a role, the first of these counts.
ORDER = (Role.OWNER, Role.ADMIN, Role.AUDITOR, Role.MEMBER)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a provider says of somebody, after its signature was checked; session: its id of this sign-in."""

    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...]
    session: str | None


def role_of(instance: Instance, groups: Iterable[str]) -> Role | None:
    """The highest role that a rule gives to somebody in these groups, None where none does."""
    known = dict(provider_rules(instance.settings.oidc_roles))
    given = {known[group] for group in (*groups, ANYBODY) if group in known}
    return next((role for role in ORDER if role.value in given), None)


def sign_in(instance: Instance, claims: Claims, *, address: str, user_agent: str) -> NewWebSession:
    """Begin a session for somebody whom the provider signed in; at their first sign-in the user is created, if a rule
    gives a role.

    Role and groups follow the provider at each sign-in, groups also at one that is refused. Raises Refusal FORBIDDEN.
    """
    role = role_of(instance, claims.groups)
    user = _user_of(instance, claims)
    if role is None or (user is not None and user.disabled_at is not None):
        if user is not None:
            _follow_groups(instance, user, claims)
        raise _refused(instance, user, address)
    if user is None:
        user = _make(instance, claims, role)
    _follow_role(instance, user, role)
    _follow_groups(instance, user, claims)
    actor = web_sessions.actor_of(user, address=address)
    with Attempt(instance, actor, "iam:self", "sign in", target_kind="session") as attempt:

        def begin(work: Work) -> NewWebSession:
            current = user_rows.user(work.connection, user.id)
            if current is None or current.disabled_at is not None:
                raise _no_access()
            return web_sessions.begin(
                work,
                current,
                method="OpenID Connect",
                user_agent=user_agent,
                issuer=claims.issuer,
                issuer_session=claims.session,
            )

        return attempt.write(begin)


def link(instance: Instance, actor: Actor, claims: Claims) -> None:
    """Link the actor, who is signed in, to this account of the provider. Raises Refusal TAKEN."""
    with Attempt(instance, actor, "iam:self", "link an account of a provider", target_kind="identity") as attempt:

        def run(work: Work) -> None:
            held = authenticators.identify(work.connection, issuer=claims.issuer, subject=claims.subject)
            if held is not None:
                raise Refusal(Kind.TAKEN, "identity-taken", "This account of the provider is somebody's already.")
            user = own_user(work, actor.user_id)
            _add_identity(work, user, claims)
            work.record(f"{user.name} signs in through {claims.issuer} from now on", level="warning")

        attempt.write(run)


def end(instance: Instance, *, issuer: str, session: str | None, subject: str | None, mark: bytes) -> int:
    """End sessions that a provider says have ended: those of its session, else all of a subject; answers how many.

    mark: identifies the provider's message, which counts once. Raises Refusal INVALID for a repeated message.
    """
    attempt = Attempt(instance, system_actor(), "people:write", "end sessions for a provider", target_kind="session")
    with attempt:

        def run(work: Work) -> int:
            if not session_rows.use_once(work.connection, mark, work.now + web_sessions.PROOF_HOLDS):
                raise Refusal(Kind.INVALID, "message-repeated", "This message came before.")
            ended = 0
            if session:
                for one in session_rows.of_issuer(work.connection, issuer, session):
                    ended += session_rows.remove(work.connection, one.id)
            elif subject:
                user_id = authenticators.identify(work.connection, issuer=issuer, subject=subject)
                ended = session_rows.remove_of_user(work.connection, user_id) if user_id else 0
            work.record(f"The provider {issuer} ended {count(ended, 'session')} in the console")
            return ended

        return attempt.write(run)


def _user_of(instance: Instance, claims: Claims) -> User | None:
    def question(connection: Connection) -> User | None:
        number = authenticators.identify(connection, issuer=claims.issuer, subject=claims.subject)
        return None if number is None else user_rows.user(connection, number)

    return instance.database.read(question)


def _make(instance: Instance, claims: Claims, role: Role) -> User:
    """Create the user of these claims. A user who has that name already must link the account first."""
    actor = _keyrack(instance)
    with Attempt(instance, actor, "people:write", "note who a user is at a provider", target_kind="user") as attempt:

        def run(work: Work) -> User:
            # In one transaction, as a user without the identity could never sign in through the provider.
            user = users.create_user(within(work), actor, name=plain_blanks(claims.name), role=role)
            _add_identity(work, user, claims)
            work.record(f"{user.name} came through {claims.issuer}", target_id=user.id)
            return user

        try:
            return attempt.write(run)
        except Refusal as refusal:
            if refusal.kind is not Kind.TAKEN:
                raise
            known = _user_of(instance, claims)
            if known is not None:
                return known  # another sign-in of the same person was quicker
            words = (
                f"There is a user {claims.name} here who is not linked to this account of the provider. "
                "Sign in as that user and link it under Sign-in and sessions, or ask an owner of the workspace."
            )
            raise Refusal(Kind.FORBIDDEN, "identity-not-linked", words) from None


def _follow_role(instance: Instance, user: User, role: Role) -> None:
    """Change the role to what the rules give; the last owner stays owner."""
    if user.role is not role:
        try:
            users.change_rights(instance, _keyrack(instance), user.id, role=role, policies=user.policies)
        except Refusal as refusal:
            if refusal.code != "last-owner":
                raise


def _follow_groups(instance: Instance, user: User, claims: Claims) -> None:
    """Bring the user into, or out of, the groups that rules name; other groups stay."""
    actor = _keyrack(instance)
    for theirs, ours in dict(provider_rules(instance.settings.oidc_groups)).items():
        inside = theirs in claims.groups

        def held(connection: Connection, ours: str = ours) -> frozenset[int]:
            number = group_rows.group_id(connection, user.workspace_id, ours)
            return group_rows.group_member_ids(connection, number) if number else frozenset()

        if inside == (user.id in instance.database.read(held)):
            continue
        # Only this user is added or removed, so that others who enter the group meanwhile stay.
        if inside:
            groups.ensure(instance, actor, name=ours, user_ids=(user.id,), exactly=False)
            continue
        try:
            groups.remove_member(instance, actor, ours, user.name)
        except Refusal as refusal:
            if refusal.kind is not Kind.MISSING:
                raise
            # Somebody else, or another sign-in of the same person, was quicker.


def _add_identity(work: Work, user: User, claims: Claims) -> None:
    authenticators.add_identity(
        work.connection, user_id=user.id, issuer=claims.issuer, subject=claims.subject, at=work.now
    )


def _keyrack(instance: Instance) -> Actor:
    """Keyrack itself, as actor in the first workspace, which the provider is for."""
    names = instance.database.read(workspaces.workspaces_by_name)
    if not names:
        raise _no_access()
    return system_actor(min(one.id for one in names), channel=web_sessions.CHANNEL)


def _no_access() -> Refusal:
    words = "The provider knows you, but no rule here lets you in. Ask an owner of the workspace."
    return Refusal(Kind.FORBIDDEN, "no-rule", words)


def _refused(instance: Instance, user: User | None, address: str) -> Refusal:
    refusal = _no_access()
    named = (user.workspace_id, user.id, user.name) if user else (_keyrack(instance).workspace_id, None, None)
    stranger = actors.stranger(*named, address=address, channel=web_sessions.CHANNEL)
    refused = RefusedAttempt(stranger, "iam:self", refusal.code, "sign in", "session")
    instance.refusals.record(instance.database, refused, instance.now(), later=True)
    return refusal
