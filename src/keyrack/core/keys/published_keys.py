"""The public keys of a user as others may see them, by the user's name or id; must change nothing."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core.instance import Instance
from keyrack.core.lookups import is_oneself
from keyrack.core.work import Attempt
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor, User, UserKey
from keyrack.ssh.fingerprint import is_fingerprint
from keyrack.store.keys import key_owners
from keyrack.store.keys import published_keys as published
from keyrack.store.people import users, workspaces

SEE = "see SSH keys of users"


@dataclass(frozen=True, slots=True)
class Published:
    """A user, and the keys that others may see, oldest first."""

    user: User
    keys: tuple[UserKey, ...]


def of_user(instance: Instance, actor: Actor, *, name: str = "", user_id: int | None = None) -> Published:
    """The keys of one user: of the actor's workspace or, for callers without an account, of the first one.

    user_id: counts first; name: where there is no such id. A disabled user has no keys here, so that programs that keep
    in step take them away. Raises Refusal MISSING, and UNAUTHENTICATED or FORBIDDEN where the setting `public_keys`
    hides keys.
    """
    _refuse_unless_public(instance, actor, user_id=user_id, name=name)

    def question(connection: Connection) -> Published | None:
        workspace_id = actor.workspace_id if actor.user_id is not None else workspaces.first_workspace_id(connection)
        user = None if user_id is None else users.user(connection, user_id)
        if user is None or user.workspace_id != workspace_id:
            user = users.user_by_name(connection, workspace_id, name)
        if user is None:
            return None
        shown = () if user.disabled_at is not None else published.sound_of_user(connection, user.id)
        return Published(user, shown)

    published_user = instance.database.read(question)
    if published_user is None:
        raise missing("user")
    return published_user


def by_fingerprint(instance: Instance, actor: Actor, fingerprint: str) -> tuple[UserKey, User]:
    """The key with a fingerprint, and its user; fingerprint: SHA256:… or MD5 as 16 pairs of digits.

    Raises Refusal INVALID, MISSING or FORBIDDEN.
    """
    with Attempt(instance, actor, "people:read", SEE, target_kind="user key") as attempt:

        def question(connection: Connection) -> int | None:
            if is_fingerprint(fingerprint):
                owned = key_owners.owner_of(connection, fingerprint)
                return None if owned is None or owned[1] is None else owned[1].id
            return _by_md5(published.public_keys_of_workspace(connection, actor.workspace_id), fingerprint)

        key_id = attempt.read(question)
        if key_id is None:
            raise missing("SSH key")
        return _with_user(attempt, key_id)


def by_id(instance: Instance, actor: Actor, key_id: int) -> tuple[UserKey, User]:
    """A key of any user of the workspace, and its user. Raises Refusal MISSING or FORBIDDEN."""
    with Attempt(instance, actor, "people:read", SEE, target_kind="user key", target_id=key_id) as attempt:
        return _with_user(attempt, key_id)


def _with_user(attempt: Attempt, key_id: int) -> tuple[UserKey, User]:
    def question(connection: Connection) -> tuple[UserKey, User] | None:
        key = published.of_workspace(connection, attempt.actor.workspace_id, key_id)
        user = None if key is None else users.user(connection, key.user_id)
        return None if key is None or user is None or key.public_key is None else (key, user)

    key_and_user = attempt.read(question)
    if key_and_user is None:
        raise missing("SSH key")
    return key_and_user


def _by_md5(keys: tuple[tuple[int, str], ...], fingerprint: str) -> int | None:
    """The id of the key with an MD5 fingerprint. These are stored for no key, so each key's is computed."""
    digits = fingerprint.removeprefix("MD5:").replace(":", "").lower()
    if len(digits) != 32 or set(digits) - set("0123456789abcdef"):
        words = "A fingerprint is written SHA256:… or as 16 pairs of hexadecimal digits."
        raise Refusal(Kind.INVALID, "fingerprint-malformed", words, field="fingerprint")
    for key_id, public_key in keys:
        blob = base64.b64decode(public_key.split(" ")[1])
        if hashlib.md5(blob, usedforsecurity=False).hexdigest() == digits:
            return key_id
    return None


def _refuse_unless_public(instance: Instance, actor: Actor, *, user_id: int | None, name: str) -> None:
    if instance.settings.public_keys:
        return
    if actor.user_id is None:
        words = "This service shows its users' keys to its users alone. Call it with a token."
        raise Refusal(Kind.UNAUTHENTICATED, "no-credentials", words)
    if actor.user_id == user_id or is_oneself(actor, name):
        return
    refusal = policy.may(actor, "people:read")
    if refusal is not None:
        raise refusal
