"""Whose proofs somebody may touch: nobody's who may more than oneself; must change nothing."""

from __future__ import annotations

from collections.abc import Iterable

from keyrack import policy
from keyrack.core.work import Work
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, Grant, RepositoryRole, Role, User
from keyrack.store.git import repositories
from keyrack.store.keys import grants

# Whoever may register a key of a user's own gets in wherever the user does.
OWN_KEYS = "codeartsrepo::createUserSSHkey"
_WRITERS = (RepositoryRole.DEVELOPER, RepositoryRole.ADMIN)


def refuse_exceeding(work: Work, user: User, *, has_keys: bool = False) -> None:
    """Refuse to touch the proofs of a user who may more than the actor.

    Proofs are what one signs in with or has rights from: password, tokens, access keys, role, policies, being enabled.
    Whoever sets one could use it, so the user's actions, logins and repositories must all be the actor's as well.
    has_keys: a key comes to the user by this change, or the right to register one, so that logins count also where the
    user could register none so far. Raises Refusal FORBIDDEN.
    """
    actor = work.actor
    refusal = policy.exceeds(actor, user.role, user.policies)
    if refusal is not None:
        raise refusal
    if user.id == actor.user_id:
        return
    has_keys = has_keys or OWN_KEYS in policy.actions(user.role, user.policies)
    if has_keys and policy.lacking(actor, ("grants:write",)):
        _refuse_logins(work, user)
    if policy.lacking(actor, _of_member(RepositoryRole.ADMIN, has_keys=True)):
        _refuse_repositories(work, user, has_keys=has_keys)


def refuse_giving(actor: Actor, role: Role, policies: Iterable[str]) -> None:
    """Refuse to give a role and policies that allow more than the actor may. Raises Refusal FORBIDDEN."""
    more = policy.exceeds(actor, role, policies)
    if more is not None:
        raise more


def refuse_disabled(user: User | None) -> None:
    """Refuse to give something that lets in to somebody who is shut out. Raises Refusal INVALID."""
    if user is not None and user.disabled_at is not None:
        raise Refusal(Kind.INVALID, "user-disabled", f"{user.name} is disabled; enable the user first.")


def _refuse_logins(work: Work, user: User) -> None:
    """Where the user logs in by a grant, the actor must too, and as long."""
    own = () if work.actor.user_id is None else grants.grants_of_user(work.connection, work.actor.user_id, work.now)
    mine = [grant for grant in own if not grant.restrictions and grant.has_begun(work.now)]
    for grant in grants.grants_of_user(work.connection, user.id, work.now):
        if not any(_covers(one, grant) for one in mine):
            raise _exceeded(f"{user.name} may log in where you may not")


def _covers(mine: Grant, other: Grant) -> bool:
    """Whether a grant of one's own lets one in at the same place as another, and as long."""
    if (mine.server_id, mine.tag, mine.system_user) != (other.server_id, other.tag, other.system_user):
        return False
    return mine.expires_at is None or (other.expires_at is not None and other.expires_at <= mine.expires_at)


def _refuse_repositories(work: Work, user: User, *, has_keys: bool) -> None:
    """What the user may do as a member of a repository, the actor must too."""
    actor = work.actor
    own = {} if actor.user_id is None else repositories.roles_of_user(work.connection, actor.user_id)
    bounds = tuple(actor.scopes)
    for repository_id, role in repositories.roles_of_user(work.connection, user.id).items():
        mine = own.get(repository_id)
        held = _within(bounds, _of_member(mine, has_keys=True)) if mine else frozenset()
        if policy.lacking(actor, _of_member(role, has_keys=has_keys) - held):
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
