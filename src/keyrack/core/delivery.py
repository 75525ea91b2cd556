"""What a change of keys means for hosts: revocations, revisions, seals; must be called inside a unit of work."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from keyrack.core.instance import Instance
from keyrack.core.work import Work
from keyrack.model import Credential, Grant, UserKey
from keyrack.store import keys, revocations


def seal_credential(
    instance: Instance,
    *,
    server_id: int,
    username: str,
    public_key: str,
    expires_at: datetime | None,
    restrictions: Mapping[str, Any],
) -> bytes:
    """The seal of what a credential lets in, for its row."""
    return instance.key.seal("credential", server_id, username, public_key, _moment(expires_at), _json(restrictions))


def credential_holds(instance: Instance, credential: Credential, seal: bytes) -> bool:
    """Whether a credential's row is as Keyrack wrote it."""
    return seal == seal_credential(
        instance,
        server_id=credential.server_id,
        username=credential.username,
        public_key=credential.public_key,
        expires_at=credential.expires_at,
        restrictions=credential.restrictions,
    )


def seal_user_key(instance: Instance, *, user_id: int, public_key: str | None) -> bytes:
    """The seal of whose key this is, for its row."""
    return instance.key.seal("user key", user_id, public_key)


def user_key_holds(instance: Instance, key: UserKey, seal: bytes) -> bool:
    """Whether a user key's row is as Keyrack wrote it."""
    return seal == seal_user_key(instance, user_id=key.user_id, public_key=key.public_key)


def seal_deploy_key(instance: Instance, *, repository_id: int, public_key: str, can_push: bool) -> bytes:
    """The seal of what a deploy key opens, for its row."""
    return instance.key.seal("deploy key", repository_id, public_key, can_push)


def seal_grant(instance: Instance, values: Mapping[str, Any]) -> bytes:
    """The seal of what a grant lets in; values: the columns of its row."""
    return instance.key.seal(
        "grant",
        values["workspace_id"],
        values["user_id"],
        values["group_id"],
        values["server_id"],
        values["tag"],
        values["system_user"],
        _json(values["restrictions"]),
        _moment(values["expires_at"]),
    )


def grant_holds(instance: Instance, grant: Grant, seal: bytes) -> bool:
    """Whether a grant's row is as Keyrack wrote it."""
    return seal == seal_grant(
        instance,
        {
            name: getattr(grant, name)
            for name in (
                "workspace_id",
                "user_id",
                "group_id",
                "server_id",
                "tag",
                "system_user",
                "restrictions",
                "expires_at",
            )
        },
    )


def arrived(work: Work, server_ids: Iterable[int], fingerprint: str) -> int:
    """A key was given to servers: they may no longer refuse it. Answers the last new revision, or 0."""
    revision = 0
    for server_id in sorted(server_ids):
        keys.unrevoke(work.connection, server_id, fingerprint)
        revision = work.touch(server_id)
    return revision


def left(work: Work, server_ids: Iterable[int], gone: Iterable[tuple[str, str]]) -> None:
    """Keys were taken from servers; gone: pairs of fingerprint and public key (type and base64).

    RevokedKeys speaks for a whole host, so a key goes in only when nothing on it lets the key in any more.
    """
    pairs = tuple(gone)
    for server_id in sorted(server_ids):
        revision = work.touch(server_id)
        for fingerprint, public_key in pairs:
            if not keys.lets_in(work.connection, server_id, work.actor.workspace_id, fingerprint, work.now):
                revocations.add(work.connection, server_id, fingerprint, public_key, work.now, revision)


def _moment(value: datetime | None) -> str:
    return "" if value is None else value.isoformat()


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
