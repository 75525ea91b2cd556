"""Whose proofs an actor may touch: only those of users who may do no more than the actor; must change nothing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from keyrack import policy
from keyrack.core.work import Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Grant, RepositoryRole, Role, User
from keyrack.store.git import repositories
from keyrack.store.keys import grants

# A user who may register own keys can log in wherever their grants let them.
OWN_KEYS = "codeartsrepo::createUserSSHkey"
_WRITERS = (RepositoryRole.DEVELOPER, RepositoryRole.ADMIN)


def refuse_exceeding(work: Work, user: User, *, has_keys: bool = False) -> None:
    """Refuse to touch the proofs of a user who may do more than the actor. Raises Refusal FORBIDDEN.

    Proofs are what a user signs in with or has rights from: password, tokens, access keys, role, policies, being
    enabled. Whoever sets one could use it. So the actor must have all that the user has: 1. actions; 2. logins by
    grants, if the user has or may register keys; 3. what the user may do as a member of repositories.

    has_keys: this change gives the user a key, or the right to register one, so that 2 counts in any case.
    """
    actor = work.actor
    refusal = policy.exceeds(actor, user.role, user.policies)  # 1
    if refusal is not None:
        raise refusal
    if user.id == actor.user_id:
        return
    has_keys = has_keys or OWN_KEYS in policy.actions(user.role, user.policies)
    if has_keys and policy.lacking(actor, ("grants:write",)):
        _refuse_logins(work, user)  # 2
    if policy.lacking(actor, _of_member(RepositoryRole.ADMIN, has_keys=True)):
        _refuse_repositories(work, user, has_keys=has_keys)  # 3


def refuse_giving(actor: Actor, role: Role, policies: Iterable[str]) -> None:
    """Refuse to give a role and policies that allow more than the actor may do. Raises Refusal FORBIDDEN."""
    more = policy.exceeds(actor, role, policies)
    if more is not None:
        raise more


def refuse_disabled(user: User | None) -> None:
    """Refuse to give a disabled user something that lets in. Raises Refusal INVALID."""
    if user is not None and user.disabled_at is not None:
        raise Refusal(Kind.INVALID, "user-disabled", f"{user.name} is disabled; enable the user first.")


def bounded_end(actor: Actor, end: datetime | None) -> datetime | None:
    """An end, None for none, or that of the actor's proof where it is earlier."""
    if actor.ends_at is not None and (end is None or end > actor.ends_at):
        return actor.ends_at
    return end


def _refuse_logins(work: Work, user: User) -> None:
    """Refuse unless the actor has a login wherever the user has one by a grant, for as long."""
    own = () if work.actor.user_id is None else grants.grants_of_user(work.connection, work.actor.user_id, work.now)
    unrestricted = [grant for grant in own if not grant.restrictions and grant.has_begun(work.now)]
    for grant in grants.grants_of_user(work.connection, user.id, work.now):
        if not any(_covers(one, grant) for one in unrestricted):
            raise _exceeded(f"{user.name} may log in where you may not")


def _covers(own: Grant, other: Grant) -> bool:
    """Whether an own grant is for the same place as another one, and lasts as long."""
    if (own.server_id, own.tag, own.system_user) != (other.server_id, other.tag, other.system_user):
        return False
    return own.expires_at is None or (other.expires_at is not None and other.expires_at <= own.expires_at)


def _refuse_repositories(work: Work, user: User, *, has_keys: bool) -> None:
    """Refuse unless the actor may do all that the user may as a member of repositories."""
    actor = work.actor
    own_roles = {} if actor.user_id is None else repositories.roles_of_user(work.connection, actor.user_id)
    bounds = tuple(actor.scopes)
    for repository_id, role in repositories.roles_of_user(work.connection, user.id).items():
        own_role = own_roles.get(repository_id)
        own_actions = _within(bounds, _of_member(own_role, has_keys=True)) if own_role else frozenset()
        if policy.lacking(actor, _of_member(role, has_keys=has_keys) - own_actions):
            raise _exceeded(f"{user.name} may do more with a repository than you")


def _of_member(role: RepositoryRole, *, has_keys: bool) -> frozenset[str]:
    granted = policy.actions(None, policy.REPOSITORY_ROLE_ACTIONS[role])
    git = {"git:fetch", "git:push"} if role in _WRITERS else {"git:fetch"}
    return granted | (git if has_keys else set())


def _within(bounds: Iterable[str], actions: frozenset[str]) -> frozenset[str]:
    return frozenset(action for action in actions if any(policy.matches(bound, action) for bound in bounds))


def _exceeded(why: str) -> Refusal:
    words = f"This would touch or give rights that you lack yourself: {why}. Ask an owner or admin of the workspace."
    return Refusal(Kind.FORBIDDEN, "exceeds-own-rights", words)
