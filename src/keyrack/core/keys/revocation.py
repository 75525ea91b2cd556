"""Revokes one key everywhere in a workspace at once, until that is lifted; must leave nothing that the key opens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from keyrack.core import cursors, validation
from keyrack.core.instance import Instance
from keyrack.core.keys import propagation
from keyrack.core.next_steps import with_commands
from keyrack.core.work import Attempt, Recorded, Work
from keyrack.errors import Refusal, invalid, missing
from keyrack.model import Actor, Page
from keyrack.protocol.words import count
from keyrack.ssh.public_key import KeyProblem, PublicKey, read_canonical
from keyrack.store.git import deploy_keys
from keyrack.store.keys import expired_keys, grants, keys_of_many, revocations, revoked_keys
from keyrack.store.keys import user_keys as user_key_rows
from keyrack.store.keys.revoked_keys import RevokedKey


@dataclass(frozen=True, slots=True)
class RevocationOutcome:
    """How many rows of each kind a key was taken from; revisions: server id to the revision that refuses it."""

    fingerprint: str
    credentials: int
    user_keys: int
    repositories: int
    revisions: dict[int, int]


def revoke_everywhere(
    instance: Instance, actor: Actor, fingerprint: object, *, reason: object = None, unknown: bool = False
) -> RevocationOutcome:
    """Delete every credential, user key and deploy key with this key in the workspace, as one change.

    Every server that had it, or whose host found it in a file, refuses it from its next contact on and ends its
    sessions; receipts.of_key tells how far that is. Nobody can register it in the workspace until lift().

    fingerprint: SHA256:… as ssh-keygen -l prints it; reason: in words, or None; unknown: also a key that nothing here
    has. Revoking the same key again answers the same revisions, so that a caller who got no answer may ask again.
    Raises Refusal INVALID, or MISSING where nothing here has the key.
    """
    attempt = Attempt(instance, actor, "keys:revoke", "revoke a key everywhere", target_kind="key")
    with attempt:
        key = validation.fingerprint(fingerprint)
        why = validation.reason(reason, maximum=validation.LONGEST_TITLE)

        def change(work: Work) -> RevocationOutcome:
            workspace = work.actor.workspace_id
            on_servers = revocations.credentials_of_key(work.connection, workspace, key)
            of_users = revocations.user_keys_of_key(work.connection, workspace, key)
            by_hand = revocations.unmanaged_with_key(work.connection, workspace, key)
            opened = {server_id for server_id, _ in (*on_servers.values(), *by_hand.values())}
            for user_id, _ in of_users.values():
                opened |= grants.servers_of_user(work.connection, user_id)
            keys_of_many.remove_credentials(work.connection, on_servers)
            for key_id in of_users:
                user_key_rows.remove_user_key(work.connection, key_id)
            repositories = deploy_keys.remove_from_workspace(work.connection, workspace, key)
            held = {public_key for _, public_key in (*on_servers.values(), *of_users.values(), *by_hand.values())}
            public_keys = {public_key for public_key in held if _is_key(key, public_key)}
            if not (unknown or on_servers or of_users or repositories or (by_hand and public_keys)):
                if revoked_keys.get(work.connection, workspace, key) is None:
                    raise missing("key")
                work.no_event("it is revoked already")
                receipts = revocations.of_key(work.connection, workspace, key)
                return RevocationOutcome(key, 0, 0, 0, {one.server_id: one.revision for one in receipts})
            revoked_keys.add(work.connection, workspace, key, by=work.actor.name, reason=why, at=work.now)
            propagation.withdrawn(work, opened, [(key, public_key) for public_key in public_keys])
            _record(work, key, on_servers, of_users)
            work.record(
                f"Revoked key {key} everywhere: {_counted(len(on_servers), len(of_users), repositories)}, "
                f"on {count(len(opened), 'host')}" + (f" ({why})" if why else ""),
                level="warning",
                details={"fingerprint": key, "reason": why},
            )
            return RevocationOutcome(key, len(on_servers), len(of_users), repositories, dict(work.bumped))

        return attempt.write(change)


def _counted(on_accounts: int, of_people: int, deploy_keys: int) -> str:
    """What was taken away, in words."""
    counts = (
        (on_accounts, "key", " on an account", "s on accounts"),
        (of_people, "key", " of a person", "s of people"),
    )
    phrases = [
        f"{n} {word}{one if n == 1 else many}"
        for n, word, one, many in (*counts, (deploy_keys, "deploy key", "", "s"))
        if n
    ]
    return " and ".join(filter(None, (", ".join(phrases[:-1]), *phrases[-1:]))) or "no key that was registered"


def lift(instance: Instance, actor: Actor, fingerprint: object) -> RevokedKey:
    """Let a key that was revoked everywhere be registered again, and answer what was noted about it.

    Hosts go on refusing it until somebody registers it. Raises Refusal INVALID, or MISSING where it is not revoked
    everywhere.
    """
    attempt = Attempt(instance, actor, "keys:revoke", "lift the revocation of a key", target_kind="key")
    with attempt:
        key = validation.fingerprint(fingerprint)

        def change(work: Work) -> RevokedKey:
            noted = revoked_keys.get(work.connection, work.actor.workspace_id, key)
            if noted is None or not revoked_keys.remove(work.connection, noted.workspace_id, key):
                raise missing("revoked key")
            work.record(
                f"Lifted the revocation of key {key}, revoked everywhere by {noted.revoked_by} "
                f"at {noted.revoked_at:%Y-%m-%d %H:%M:%S} UTC: it may be registered again",
                level="warning",
                details={"fingerprint": key},
            )
            return noted

        return attempt.write(change)


def find(
    instance: Instance, actor: Actor, *, offset: int = 0, limit: int = 15, cursor: str | None = None
) -> Page[RevokedKey]:
    """A page of the keys that are revoked everywhere in the workspace, newest first.

    cursor: of the page before, "" for the first one; takes the place of offset. Raises Refusal FORBIDDEN, or INVALID
    for a malformed cursor.
    """
    attempt = Attempt(instance, actor, "credentials:read", "list revoked keys", target_kind="key")
    with attempt:
        after = cursors.place(cursor, datetime, str)
        return attempt.read(
            lambda connection: revoked_keys.find(
                connection, actor.workspace_id, offset=offset, limit=limit, after=after
            )
        )


def noted(instance: Instance, actor: Actor, fingerprint: str) -> RevokedKey | None:
    """When, by whom and why a key was revoked everywhere; None where it is not. Raises Refusal FORBIDDEN."""
    with Attempt(instance, actor, "credentials:read", "see why a key is revoked", target_kind="key") as attempt:
        return attempt.read(lambda connection: revoked_keys.get(connection, actor.workspace_id, fingerprint))


def refuse(work: Work, key: PublicKey) -> None:
    """Raises Refusal INVALID for a key that is revoked everywhere, and, unless the setting `readd_expired_keys` allows
    that, for one that has ended. Must be called wherever a key is registered.
    """
    refusal = refusal_of(work.instance, work.connection, work.actor, key)
    if refusal is not None:
        raise refusal


def refusal_of(instance: Instance, connection: Connection, actor: Actor, key: PublicKey) -> Refusal | None:
    """The refusal that refuse() would raise, or None."""
    noted = revoked_keys.get(connection, actor.workspace_id, key.fingerprint)
    if noted is not None:
        return invalid(
            "public_key",
            with_commands(
                f"This key was revoked everywhere on {noted.revoked_at:%Y-%m-%d}. Make a new key pair; if it was "
                "revoked by mistake, an owner or admin of the workspace can lift that.",
                f"hosts revoke --lift {key.fingerprint}",
            ),
            "key-revoked",
        )
    if instance.settings.readd_expired_keys:
        return None
    ended = expired_keys.end_of(connection, actor.workspace_id, key.fingerprint, instance.now())
    if ended is not None:
        return invalid(
            "public_key",
            f"This key reached its end on {ended:%Y-%m-%d} and is not taken again. Make a new key pair, and renew the "
            "next one before it ends; the setting readd_expired_keys would allow it.",
            "key-expired",
        )
    return None


def refuse_unmanaged(work: Work, server_id: int, named: Iterable[tuple[str, str]]) -> None:
    """Have a host refuse keys in its files that are revoked everywhere.

    named: keys that the host has newly found, as pairs of fingerprint and public key.
    """
    pairs = [(fingerprint, public_key) for fingerprint, public_key in named if fingerprint]
    noted = revoked_keys.among(work.connection, work.actor.workspace_id, [fingerprint for fingerprint, _ in pairs])
    for fingerprint, public_key in pairs:
        if fingerprint in noted and _is_key(fingerprint, public_key):
            propagation.withdrawn(work, (server_id,), [(fingerprint, public_key)])


def _is_key(fingerprint: str, public_key: str) -> bool:
    """Whether a public key has this fingerprint; hosts report both, and may report them wrong."""
    try:
        return read_canonical(public_key).fingerprint == fingerprint
    except KeyProblem:
        return False


def _record(
    work: Work,
    fingerprint: str,
    on_servers: revocations.Places,
    of_users: revocations.Places,
) -> None:
    """Record an event for each deleted row, so that its own history has an end."""
    details = {"fingerprint": fingerprint}
    gone = f"Deleted SSH key {fingerprint} from a host, as it was revoked everywhere"
    work.record_each(
        Recorded(gone, "credential", credential_id, server_id, details)
        for credential_id, (server_id, _) in on_servers.items()
    )
    gone = f"Deleted SSH key {fingerprint} of a user, as it was revoked everywhere"
    work.record_each(Recorded(gone, "user key", key_id, None, details) for key_id in of_users)
