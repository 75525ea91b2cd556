"""Takes one key away from everywhere in a workspace at once; must leave nothing that it opens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from keyrack.core import delivery
from keyrack.core.instance import Instance
from keyrack.core.work import Attempt, Work
from keyrack.errors import invalid, missing
from keyrack.model import Actor
from keyrack.store import keys, revocations

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a key was taken away from. revisions: server id to the revision that carries it."""

    fingerprint: str
    credentials: int
    user_keys: int
    repositories: int
    revisions: dict[int, int]


def revoke_everywhere(instance: Instance, actor: Actor, fingerprint: object) -> Revoked:
    """Delete every credential, user key and deploy key with this key in the workspace, as one change.

    Every server on which it stood refuses it from its next contact on and ends its sessions; receipts.of_key
    tells how far that is. fingerprint: SHA256:… as ssh-keygen -l prints it. Raises Refusal INVALID, or MISSING
    when nothing here has the key.
    """
    attempt = Attempt(instance, actor, "keys:revoke", "revoke a key everywhere", target_kind="key")
    with attempt:
        if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
            raise invalid("fingerprint", "Write the key's fingerprint as ssh-keygen -l prints it: SHA256:…")

        def change(work: Work) -> Revoked:
            workspace = work.actor.workspace_id
            on_servers = revocations.credentials_of_key(work.connection, workspace, fingerprint)
            of_users = revocations.user_keys_of_key(work.connection, workspace, fingerprint)
            opened = {server_id for server_id, _ in on_servers.values()}
            for user_id, _ in of_users.values():
                opened |= keys.servers_of_user(work.connection, user_id)
            for credential_id in on_servers:
                keys.remove_credential(work.connection, credential_id)
            for key_id in of_users:
                keys.remove_user_key(work.connection, key_id)
            repositories = revocations.remove_deploy_keys(work.connection, workspace, fingerprint)
            if not (on_servers or of_users or repositories):
                raise missing("key")
            lines = {line for _, line in (*on_servers.values(), *of_users.values())}
            delivery.left(work, opened, [(fingerprint, line) for line in lines])
            _record(work, fingerprint, on_servers, of_users)
            work.record(
                f"Revoked key {fingerprint} everywhere: {len(on_servers)} credentials, {len(of_users)} user keys and "
                f"{repositories} deploy keys, on {len(opened)} servers",
                level="warning",
                details={"fingerprint": fingerprint},
            )
            return Revoked(fingerprint, len(on_servers), len(of_users), repositories, dict(work.touched))

        return attempt.write(change)


def _record(
    work: Work,
    fingerprint: str,
    on_servers: revocations.Places,
    of_users: revocations.Places,
) -> None:
    """An event for each thing that goes, so that its own history ends with a word."""
    for credential_id, (server_id, _) in on_servers.items():
        work.record(
            f"Deleted SSH key {fingerprint} from a server, as it was revoked everywhere",
            target_kind="credential",
            target_id=credential_id,
            server_id=server_id,
            details={"fingerprint": fingerprint},
            naming_revisions=False,
        )
    for key_id in of_users:
        work.record(
            f"Deleted SSH key {fingerprint} of a user, as it was revoked everywhere",
            target_kind="user key",
            target_id=key_id,
            details={"fingerprint": fingerprint},
            naming_revisions=False,
        )
