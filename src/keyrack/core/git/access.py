"""Decides who may fetch and push over SSH, and says why not; must start no program itself.

A decision rests on these checks, in this order: (1) sshd has checked a signature by the key whose line it got, and that
line names the fingerprint; (2) the fingerprint belongs to one user key or to deploy keys; (3) the row of that key has
Keyrack's seal, and the key in it has that very fingerprint; (4) its user is not disabled; (5) the command is one of two
verbs and one path in strict grammar; (6) the repository exists, under this name or a former one; (7) policy allows this
identity this verb there.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core.git.repositories import path_of
from keyrack.core.instance import Instance
from keyrack.core.people import actors
from keyrack.errors import Kind, Refusal, missing
from keyrack.logs import logger
from keyrack.model import Actor, RepositoryRole, has_ended
from keyrack.ssh.fingerprint import is_fingerprint
from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.public_key import read_canonical
from keyrack.store.git import git_access
from keyrack.store.git.repositories import Repository

log = logger("keyrack.git")

FETCH, PUSH = "fetch", "push"
VERBS = {"git-upload-pack": FETCH, "git-receive-pack": PUSH}
LONGEST_COMMAND = 512
NOT_OFFERED = "command-not-offered"
# What clients send: one verb, one blank, one path. git quotes the path, others do not, as no path here needs quotes;
# git-shell(1) also accepts `git upload-pack`. ssh:// addresses put a slash before the path; people who copy an address
# or complete a folder's name put one after it, which other Git servers accept.
COMMAND = re.compile(r"(git[- ]upload-pack|git[- ]receive-pack) (['\"]?)/?([A-Za-z0-9._/-]*[A-Za-z0-9._-])/?\2")
CHANNEL = "git"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who a key belongs to.

    kind "user": actor is the user; "deploy": actor has no rights but the key's. frozen: the key opens nothing new until
    it is confirmed, while transfers under way go on; expires_at: the key's end.
    """

    kind: Literal["user", "deploy"]
    fingerprint: str
    public_key: str
    key_id: int
    title: str
    actor: Actor
    frozen: bool = False
    expires_at: datetime | None = None

    @property
    def words(self) -> str:
        """Who it is, for log and greeting."""
        return self.actor.name if self.kind == "user" else f"deploy key {self.title}"


@dataclass(frozen=True, slots=True)
class GitAccess:
    """A permitted operation.

    moved_from: the former path that was asked for, or None; protected: a ref that must not be pushed to, or None;
    may_push_protected: the holder may push to a protected default branch.
    """

    holder: Holder
    repository: Repository
    verb: str
    moved_from: str | None
    protected: str | None
    may_push_protected: bool
    deploy_key_id: int | None


def public_key_of(instance: Instance, fingerprint: str) -> str | None:
    """The public key (type and base64) of a fingerprint, None where it may open nothing in Git."""
    # (1) sshd asks with the fingerprint of a key that a client offers; anything else must not reach the database.
    if not is_fingerprint(fingerprint):
        return None
    holder = instance.database.read(lambda connection: _holder(connection, fingerprint, instance.now(), address=""))
    return None if holder is None or holder.frozen else holder.public_key


def holder_of(instance: Instance, fingerprint: str, *, address: str = "", path: str | None = None) -> Holder | None:
    """Who a fingerprint belongs to now, or None.

    A holder whose key is frozen is answered too, for what is under way and to say why nothing new begins. address:
    where the connection comes from; path: of the repository that is asked for, whose deploy key counts if several have
    this key.
    """
    # (1) sshd has checked a signature by the key whose line names this fingerprint.
    if not is_fingerprint(fingerprint):
        return None
    return instance.database.read(
        lambda connection: _holder(connection, fingerprint, instance.now(), address=address, path=path)
    )


def has_expired(instance: Instance, holder: Holder) -> bool:
    """Whether a holder's key has ended by now; needs no database."""
    return has_ended(holder.expires_at, instance.now())


def read_command(command: bytes) -> tuple[str, str]:
    """The verb ("fetch" or "push") and path of a client's command. Raises Refusal INVALID.

    Beside the grammar of paths it may have one slash before the path and one after it, and one .git at its end.
    """
    try:
        text = command.decode("ascii") if len(command) <= LONGEST_COMMAND else ""
    except UnicodeDecodeError:
        text = ""
    # (5) One of two verbs and one path, in strict grammar.
    asked = COMMAND.fullmatch(text)
    if asked is None:
        raise not_offered()
    try:
        return VERBS[asked.group(1).replace(" ", "-")], path_of(asked.group(3).removesuffix(".git"))
    except Refusal:
        raise not_offered() from None


def decide(instance: Instance, holder: Holder, verb: str, path: str) -> GitAccess:
    """Whether a holder may do a verb with the repository at a path. Raises Refusal MISSING or FORBIDDEN."""

    def question(connection: Connection) -> GitAccess | Refusal:
        # (6) The repository exists, under this name or a former one.
        repository = git_access.repository_at(connection, path)
        if repository is None:
            return _not_there(holder)
        facts = _Facts.about(connection, [(holder, repository)])
        return _judge(facts, holder, repository, verb, path)

    answer = instance.database.read(question)
    if isinstance(answer, Refusal):
        raise answer
    return answer


def ended(instance: Instance, accesses: Iterable[GitAccess]) -> list[tuple[GitAccess, Refusal]]:
    """Which of the operations under way are no longer permitted, each with the reason.

    It takes a few statements however many there are, as it is asked several times a second.
    """
    wanted = list(accesses)

    def question(connection: Connection) -> list[tuple[GitAccess, Refusal]]:
        keys = git_access.holders(connection, {access.holder.fingerprint for access in wanted})
        repositories = git_access.repositories_by_id(connection, {access.repository.id for access in wanted})
        facts = _Facts.about(connection, [(access.holder, access.repository) for access in wanted])
        lost = []
        for access in wanted:
            reason = _refusal_now(facts, instance.now(), keys, repositories, access)
            if reason is not None:
                lost.append((access, reason))
        return lost

    return instance.database.read(question)


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the database says about some holders and repositories."""

    roles: dict[tuple[int, int], RepositoryRole]
    deploy_keys: dict[tuple[str, int], git_access.SoundDeployKey]

    @classmethod
    def about(cls, connection: Connection, pairs: list[tuple[Holder, Repository]]) -> _Facts:
        people = {holder.actor.user_id for holder, _ in pairs if holder.actor.user_id is not None}
        machines = {holder.fingerprint for holder, _ in pairs if holder.kind == "deploy"}
        places = {repository.id for _, repository in pairs}
        return cls(
            git_access.roles(connection, people, places) if people else {},
            git_access.deploy_keys_of(connection, machines, places) if machines else {},
        )


def _judge(facts: _Facts, holder: Holder, repository: Repository, verb: str, path: str) -> GitAccess | Refusal:
    # (7) Invariant 2: policy is asked before anything is done.
    deploy = None
    role = None
    if holder.kind == "deploy":
        deploy = facts.deploy_keys.get((holder.fingerprint, repository.id))
        if deploy is None or not _deploy_key_holds(deploy, holder.fingerprint):
            return _not_there(holder)
        refusal = policy.deploy_key_problem(verb, can_push=deploy.can_push)
    else:
        role = facts.roles.get((holder.actor.user_id or 0, repository.id))
        refusal = policy.git_problem(
            holder.actor,
            verb,
            workspace_id=repository.workspace_id,
            visibility=repository.visibility,
            role=role,
        )
    if refusal is not None:
        return refusal
    # Who may push without being a member has rights on the whole workspace.
    may_push_protected = role is RepositoryRole.ADMIN or (
        repository.workspace_id == holder.actor.workspace_id and policy.may(holder.actor, "git:push") is None
    )
    return GitAccess(
        holder=holder if deploy is None else replace(holder, key_id=deploy.key_id, title=deploy.title),
        repository=repository,
        verb=verb,
        moved_from=path if path != repository.path else None,
        protected=f"refs/heads/{repository.default_branch}"
        if repository.protect_default and not may_push_protected
        else None,
        may_push_protected=may_push_protected,
        deploy_key_id=None if deploy is None else deploy.key_id,
    )


def _refusal_now(
    facts: _Facts,
    now: datetime,
    keys: dict[str, git_access.HeldKey | None],
    repositories: dict[int, Repository],
    access: GitAccess,
) -> Refusal | None:
    """Why an operation under way is no longer permitted, None where it is.

    keys: by fingerprint; repositories: by id.
    """
    old = access.holder
    repository = repositories.get(access.repository.id)
    if repository is None:
        return missing("repository")
    if old.kind == "deploy":
        holder: Holder | None = old if old.fingerprint in keys and keys[old.fingerprint] is None else None
    else:
        holder = _user_holder(old.fingerprint, keys.get(old.fingerprint), old.actor.address, now)
    if holder is None or holder.actor.user_id != old.actor.user_id:
        return key_removed()
    answer = _judge(facts, holder, repository, access.verb, repository.path)
    if isinstance(answer, Refusal):
        return answer
    # git's hook got the protected branch at the start, and knows no later one.
    if access.verb == PUSH and answer.protected not in (None, access.protected):
        return _protected_meanwhile()
    return None


def _holder(
    connection: Connection, fingerprint: str, now: datetime, *, address: str, path: str | None = None
) -> Holder | None:
    # (2) It belongs to one user key or to deploy keys; (3) their rows have Keyrack's seal, which the store checks.
    held = git_access.holders(connection, (fingerprint,))
    if fingerprint not in held:
        return None
    user_key = held[fingerprint]
    if user_key is not None:
        return _user_holder(fingerprint, user_key, address, now)
    repository_asked = None if path is None else git_access.repository_at(connection, path)
    its_deploy_keys = (
        {}
        if repository_asked is None
        else git_access.deploy_keys_of(connection, (fingerprint,), (repository_asked.id,))
    )
    for deploy in (*its_deploy_keys.values(), *git_access.deploy_keys_with(connection, fingerprint)):
        if _deploy_key_holds(deploy, fingerprint):
            repository = git_access.repositories_by_id(connection, (deploy.repository_id,)).get(deploy.repository_id)
            return Holder(
                kind="deploy",
                fingerprint=fingerprint,
                public_key=deploy.public_key,
                key_id=deploy.key_id,
                title=deploy.title,
                actor=Actor(
                    workspace_id=repository.workspace_id if repository else 0,
                    user_id=None,
                    name=f"deploy key {deploy.title}",
                    role=None,
                    address=address,
                    channel=CHANNEL,
                ),
            )
    return None


def _user_holder(fingerprint: str, held: git_access.HeldKey | None, address: str, now: datetime) -> Holder | None:
    if held is None or held.user.disabled_at is not None:  # (4)
        return None
    if has_ended(held.expires_at, now):
        return None
    # (3) The key in the row has the very fingerprint that led to it.
    if _fingerprint(held.public_key) != fingerprint:
        log.error("key row is not as Keyrack wrote it", key_id=held.key_id)
        return None
    return Holder(
        kind="user",
        fingerprint=fingerprint,
        public_key=held.public_key,
        key_id=held.key_id,
        title=held.title,
        actor=actors.of_user(held.user, address=address, channel=CHANNEL),
        frozen=held.frozen,
        expires_at=held.expires_at,
    )


def _deploy_key_holds(key: git_access.SoundDeployKey, fingerprint: str) -> bool:
    # (3) The same of a deploy key.
    if _fingerprint(key.public_key) != fingerprint:
        log.error("deploy key row is not as Keyrack wrote it", key_id=key.key_id)
        return False
    return True


def _fingerprint(public_key: str) -> str:
    try:
        return read_canonical(public_key).fingerprint
    except KeyProblem:
        return ""


def clone_address(instance: Instance, path: str) -> str:
    """The address to clone a repository from, by the instance's settings alone."""
    settings = instance.settings
    account = pwd.getpwuid(os.geteuid()).pw_name
    return f"{settings.git_address or f'ssh://{account}@{settings.git_listen}/'}{path}.git"


def key_removed() -> Refusal:
    """The refusal of a key that opened Git a moment ago and no longer does."""
    return Refusal(Kind.UNAUTHENTICATED, "key-gone", "Your SSH key is not registered any more.")


def key_frozen(holder: Holder) -> Refusal:
    """The refusal of anything new with a frozen key, over a connection that it opened before."""
    words = (
        f"Your SSH key is frozen, and opens nothing new until it is confirmed: keyrack keys confirm {holder.key_id}."
    )
    return Refusal(Kind.FORBIDDEN, "key-frozen", words)


def _not_there(holder: Holder) -> Refusal:
    """The refusal of a repository that does not exist or is not the holder's to see, in the same words for both."""
    refusal = missing("repository")
    if holder.kind == "user":
        return refusal
    words = (
        f"{refusal.message} You are here with a deploy key, which opens only repositories that it was added to: add it "
        "to this one too, as for a submodule, or use a user's key."
    )
    return Refusal(refusal.kind, refusal.code, words)


def _protected_meanwhile() -> Refusal:
    return Refusal(Kind.FORBIDDEN, "branch-protected", "The default branch was protected meanwhile; push again.")


def not_offered() -> Refusal:
    """The refusal of a command that is not Git's, or names no repository."""
    return Refusal(
        Kind.INVALID,
        NOT_OFFERED,
        "Only git clone, fetch and push are offered here, for repositories named GROUP/NAME.",
    )
