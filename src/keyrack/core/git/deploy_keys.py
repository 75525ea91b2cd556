"""Deploy keys: each opens one repository; must keep a key from being a user's and a deploy key at once."""

from __future__ import annotations

from sqlalchemy import Connection

from keyrack.core import lookups, validation
from keyrack.core.git import repositories
from keyrack.core.git.repositories import CHANGE, READ
from keyrack.core.instance import Instance
from keyrack.core.keys import revocation
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor, Page
from keyrack.ssh.public_key import PublicKey
from keyrack.store.git import deploy_keys
from keyrack.store.git.deploy_keys import DeployKey
from keyrack.store.git.repositories import Repository
from keyrack.store.keys import key_owners

MAX_PER_REPOSITORY = 10
_TRIES = 5


def may_add(instance: Instance, actor: Actor, repository_id: int) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not add deploy keys; called before fields are checked."""
    repository, entitled = repositories.reach(instance, actor, repository_id, CHANGE)
    with _attempt(instance, entitled, repository, CHANGE, "add a deploy key"):
        return


def add(
    instance: Instance,
    actor: Actor,
    repository_id: int,
    *,
    title: object,
    public_key: object,
    application: object = "",
    can_push: bool = False,
) -> DeployKey:
    """Let a key read a repository, and with can_push write it; returns once that is durable.

    title: 1 to 255 characters; public_key: one OpenSSH line; application: where the key comes from. Raises Refusal
    MISSING for the repository, INVALID for fields, TAKEN where the key is a user's or is there already, LIMIT.
    """
    repository, entitled = repositories.reach(instance, actor, repository_id, CHANGE)
    with _attempt(instance, entitled, repository, CHANGE, "add a deploy key") as attempt:
        name = validation.text(title, field="title")
        origin = "" if application in (None, "") else validation.text(application, field="application")
        key = validation.public_key(instance, entitled.workspace_id, public_key)

        def change(work: Work) -> DeployKey:
            lookups.repository(work.connection, work.actor, repository.id)
            revocation.refuse(work, key)
            if deploy_keys.by_fingerprint(work.connection, repository.id, key.fingerprint) is not None:
                words = "This key is a deploy key of this repository already."
                raise Refusal(Kind.TAKEN, "key-taken", words, field="public_key")
            if deploy_keys.count(work.connection, repository.id) >= MAX_PER_REPOSITORY:
                words = f"A repository has at most {MAX_PER_REPOSITORY} deploy keys; delete one first."
                raise Refusal(Kind.LIMIT, "too-many-deploy-keys", words)
            _claim(work, key)
            key_id = deploy_keys.add(
                work.connection,
                {
                    "repository_id": repository.id,
                    "title": name,
                    "application": origin,
                    "public_key": key.canonical,
                    "comment": key.comment,
                    "fingerprint": key.fingerprint,
                    "can_push": can_push,
                    "created_by": actor.user_id,
                    "created_at": work.now,
                },
            )
            work.record(
                f"Added deploy key {name} ({key.fingerprint}) to repository {repository.path}",
                target_id=key_id,
                details={"title": name, "fingerprint": key.fingerprint, "repository": repository.path},
            )
            return _own(work.connection, repository.id, key_id)

        return attempt.write(change)


def find(instance: Instance, actor: Actor, repository_id: int, *, offset: int = 0, limit: int = 20) -> Page[DeployKey]:
    """A page of a repository's deploy keys, newest first. Raises Refusal MISSING or FORBIDDEN."""
    repository, entitled = repositories.reach(instance, actor, repository_id, READ)
    with _attempt(instance, entitled, repository, READ, "list deploy keys") as attempt:
        return attempt.read(lambda connection: deploy_keys.find(connection, repository.id, offset=offset, limit=limit))


def get(instance: Instance, actor: Actor, repository_id: int, key_id: int) -> DeployKey:
    """One of a repository's deploy keys. Raises Refusal MISSING or FORBIDDEN."""
    repository, entitled = repositories.reach(instance, actor, repository_id, READ)
    with _attempt(instance, entitled, repository, READ, "see a deploy key", key_id) as attempt:
        return attempt.read(lambda connection: _own(connection, repository.id, key_id))


def known(instance: Instance, actor: Actor, repository_id: int, public_key: object) -> bool:
    """Whether a key is a deploy key of a repository. Raises Refusal MISSING, FORBIDDEN, or INVALID for the key."""
    repository, entitled = repositories.reach(instance, actor, repository_id, READ)
    with _attempt(instance, entitled, repository, READ, "look for a deploy key") as attempt:
        key = validation.parsed_key(instance, public_key)
        deploy_key = attempt.read(
            lambda connection: deploy_keys.by_fingerprint(connection, repository.id, key.fingerprint)
        )
        return deploy_key is not None


def delete(instance: Instance, actor: Actor, repository_id: int, key_id: int) -> DeployKey:
    """Take a deploy key from a repository, and answer it as it was. Raises Refusal MISSING or FORBIDDEN."""
    repository, entitled = repositories.reach(instance, actor, repository_id, CHANGE)
    with _attempt(instance, entitled, repository, CHANGE, "delete a deploy key", key_id) as attempt:

        def change(work: Work) -> DeployKey:
            key = _own(work.connection, repository.id, key_id)
            deploy_keys.remove(work.connection, key)
            work.record(
                f"Deleted deploy key {key.title} ({key.fingerprint}) of repository {repository.path}",
                target_id=key.id,
                details={"title": key.title, "fingerprint": key.fingerprint, "repository": repository.path},
            )
            return key

        return attempt.write(change)


def _claim(work: Work, key: PublicKey) -> None:
    """Make a key a deploy key. Several repositories may have it, but no user beside them. Raises Refusal TAKEN."""
    for _ in range(_TRIES):
        if key_owners.claim_fingerprint(work.connection, key.fingerprint, kind="deploy", user_key_id=None):
            return
        kind = deploy_keys.hold_owner(work.connection, key.fingerprint)
        if kind == "deploy":
            return
        if kind is not None:
            break
        # Its owner deleted it between the two questions, so try again.
    words = "This key is in use as a user's SSH key. Make a new pair for the repository."
    raise Refusal(Kind.TAKEN, "key-taken", words, field="public_key")


def _attempt(
    instance: Instance, actor: Actor, repository: Repository, action: str, aim: str, key_id: int | None = None
) -> Attempt:
    return Attempt(
        instance,
        actor,
        action,
        f"{aim} of repository {repository.path}",
        target_kind="deploy key",
        target_id=key_id,
    )


def _own(connection: Connection, repository_id: int, key_id: int) -> DeployKey:
    deploy_key = deploy_keys.get(connection, repository_id, key_id)
    if deploy_key is None:
        raise missing("deploy key")
    return deploy_key
