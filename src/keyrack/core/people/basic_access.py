"""Authenticates by an access key's id and secret, as HTTP Basic sends them; must never tell which of them was wrong."""

from __future__ import annotations

import hmac

from cryptography.exceptions import InvalidTag

from keyrack.core.audit.refusals import RefusedAttempt
from keyrack.core.instance import Instance
from keyrack.core.people import actors, throttle
from keyrack.core.people.access_keys import LOCKED_OUT_FOR, MAX_FAILURES
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor, has_ended
from keyrack.store.people import access_keys

LONGEST = 1024


def authenticate(
    instance: Instance, key_id: str, secret: str, *, address: str, channel: str, shared: bool = False
) -> Actor:
    """The actor behind a permanent access key in force. Raises Refusal UNAUTHENTICATED, the same for every other case.

    shared: see access_keys.authenticate. After five wrong secrets for a key from one address within five minutes,
    further ones are refused without a check: THROTTLED. Temporary keys are refused, as HTTP Basic has no place for
    their security token.
    """
    if not key_id or not secret or len(key_id) > LONGEST or len(secret) > LONGEST or not key_id.isprintable():
        raise _not_in_force()

    def attempt() -> Actor:
        give_back = None
        if not (shared and instance.throttle.knows(throttle.BASIC, address, key_id)):
            give_back = instance.throttle.guard(
                throttle.BASIC, key_id, address, most=MAX_FAILURES, seconds=LOCKED_OUT_FOR.total_seconds()
            )
        actor = _actor(instance, key_id, secret, address=address, channel=channel)
        if give_back is not None:
            give_back()
        return actor

    return instance.throttle.prove(throttle.BASIC, address, key_id, attempt)


def _actor(instance: Instance, key_id: str, secret: str, *, address: str, channel: str) -> Actor:
    claimed = instance.database.read(lambda connection: access_keys.claimed_access_key(connection, key_id))
    # Until here nothing depends on whether there is such a key, so that the time taken does not tell.
    if not _is_secret(instance, claimed.encrypted_secret, key_id, secret):
        named = (claimed.workspace_id, claimed.user_id, claimed.user_name)
        stranger = actors.stranger(*named, address=address, channel=channel, token_name=key_id)
        refused = RefusedAttempt(stranger, "iam:self", "secret-wrong", "use an access key", "access key")
        instance.refusals.record(instance.database, refused, instance.now(), later=True)
        raise _not_in_force()
    signer = instance.database.read(lambda connection: access_keys.signer(connection, key_id, ""))
    if signer is None or signer.key.security_token_hash is not None or signer.user.disabled_at is not None:
        raise _not_in_force()
    row, user = signer.key, signer.user
    if not row.active or has_ended(row.expires_at, instance.now()):
        raise _not_in_force()
    return actors.of_access_key(user, row, token_name=row.id, address=address, channel=channel)


def _is_secret(instance: Instance, encrypted: bytes | None, key_id: str, secret: str) -> bool:
    """Whether this is the stored secret; where none is stored, False after the same work."""
    try:
        known = instance.key.decrypt(encrypted or instance.key.nobodys_secret, key_id if encrypted else "")
    except InvalidTag:
        # Encrypted with another instance key, or changed in the database.
        return False
    same = hmac.compare_digest(known.encode("utf-8", "surrogatepass"), secret.encode("utf-8", "surrogatepass"))
    return same and encrypted is not None


def _not_in_force() -> Refusal:
    return Refusal(Kind.UNAUTHENTICATED, "access-key-not-in-force", "This access key is not in force.")
