"""Access keys: an id and a secret of a user, for signed requests; must show a secret once, and store it encrypted."""

from __future__ import annotations

import hmac
import secrets
import string
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography.exceptions import InvalidTag
from sqlalchemy import Connection

from keyrack import policy
from keyrack.core import lookups, validation
from keyrack.core.audit.refusals import RefusedAttempt
from keyrack.core.instance import Instance
from keyrack.core.people import actors, request_signing, throttle
from keyrack.core.people.request_signing import BadSignature, SignedRequest
from keyrack.core.people.rights import refuse_disabled, refuse_exceeding
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, User, has_ended
from keyrack.store.people import access_keys, users
from keyrack.store.people.access_keys import AccessKeyRow, Signer

LONGEST = 128
LONGEST_DESCRIPTION = 255
MAX_PER_USER = 2
MAX_TEMPORARY = 200
DECLARED = "declared"
"""Is among the details of access keys that a workspace file made."""
MAX_FAILURES = 5
LOCKED_OUT_FOR = timedelta(minutes=5)
SHORTEST_LIFE = 900
LONGEST_LIFE = 86_400
_LETTERS = string.ascii_uppercase + string.digits
_SIGNS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class AccessKey:
    """An access key as its owner may see it; secret and security_token are "" except in the answer that made it."""

    id: str
    user_uid: str
    description: str
    active: bool
    created_at: datetime
    expires_at: datetime | None
    secret: str = ""
    security_token: str = ""


def authenticate(
    instance: Instance, request: SignedRequest, authorization: str, *, address: str, channel: str, shared: bool = False
) -> Actor:
    """The actor who signed a request with an access key.

    1. The request's date is near now. 2. The key exists. 3. It is not locked: five wrong signatures in a row, whichever
    processes saw them, lock it for that address for five minutes; where the address is shared, not for clients that
    have signed with it from there before. 4. The signature, and a temporary key's security token, hold. 5. Key and user
    are in force.

    shared: the address may be that of many clients, such as an untrusted proxy. Raises Refusal UNAUTHENTICATED, whose
    code is that of BadSignature, or THROTTLED (core/people/throttle.py).
    """
    try:
        claim = request_signing.read_claim(authorization)
        request_signing.check_date(request, instance.now())  # 1
        trusted = shared and instance.throttle.knows(throttle.SIGNATURE, address, claim.access_key)

        def attempt() -> Signer:
            signer = instance.database.read(
                lambda connection: access_keys.signer(connection, claim.access_key, address)
            )
            if signer is None:  # 2
                raise BadSignature("there is no such access key", "access-key-unknown", forged=True)
            locked_out = _is_locked_out(instance, signer)
            if locked_out and not trusted:  # 3
                words = f"the access key was locked for 5 minutes after {MAX_FAILURES} failures in a row; try later"
                raise BadSignature(words, "access-key-locked-out")
            try:  # 4
                request_signing.check(request, claim, _secret(instance, signer.key), instance.now())
                _check_security_token(instance, signer.key, request)
            except BadSignature as problem:
                if problem.forged and not locked_out:
                    _count_failure(instance, signer, address=address, channel=channel)
                raise
            _check_in_force(instance, signer)  # 5
            return signer

        signer = instance.throttle.prove(
            throttle.SIGNATURE, address, claim.access_key, attempt, is_guess=request_signing.is_forged
        )
    except BadSignature as problem:
        raise Refusal(Kind.UNAUTHENTICATED, problem.code, str(problem)) from None
    if signer.failures:
        instance.database.write(lambda connection: access_keys.forget_failures(connection, signer.key.id, address))
    return _actor(signer, address=address, channel=channel)


def _secret(instance: Instance, key: AccessKeyRow) -> str:
    try:
        return instance.key.decrypt(key.encrypted_secret, key.id)
    except InvalidTag:
        # Encrypted with another instance key, or changed in the database.
        raise BadSignature("the secret key could not be fetched") from None


def _is_locked_out(instance: Instance, signer: Signer) -> bool:
    last = signer.last_failure_at
    return signer.failures >= MAX_FAILURES and last is not None and last > instance.now() - LOCKED_OUT_FOR


def _check_security_token(instance: Instance, key: AccessKeyRow, request: SignedRequest) -> None:
    sent = (request.header("x-security-token") or b"").decode("latin-1")
    if key.security_token_hash is None:
        if sent:
            raise BadSignature("a permanent access key takes no X-Security-Token", "security-token-unexpected")
    elif not hmac.compare_digest(instance.key.hash_token(sent), key.security_token_hash):
        raise BadSignature("the X-Security-Token is not this access key's", "security-token-wrong", forged=True)


def _check_in_force(instance: Instance, signer: Signer) -> None:
    if not signer.key.active or signer.user.disabled_at is not None:
        raise BadSignature("the access key is not active", "access-key-inactive")
    if has_ended(signer.key.expires_at, instance.now()):
        raise BadSignature(f"token expires, expires_at: {signer.key.expires_at:%Y-%m-%dT%H:%M:%SZ}")


def _count_failure(instance: Instance, signer: Signer, *, address: str, channel: str) -> None:
    """Count a wrong signature and record it; a locked key records none, so that a flood of them stays bounded."""
    at = instance.now()
    count = instance.database.write(
        lambda connection: access_keys.count_failure(connection, signer.key.id, address, at, at - LOCKED_OUT_FOR)
    )
    code = "access-key-locked-out" if count >= MAX_FAILURES else "signature-wrong"
    actor = _actor(signer, address=address, channel=channel)
    refused = RefusedAttempt(actor, "iam:self", code, "sign a request", "access key", each=True)
    instance.refusals.record(instance.database, refused, at)


def _actor(signer: Signer, *, address: str, channel: str) -> Actor:
    name = f"access key {signer.key.id}"
    return actors.of_access_key(signer.user, signer.key, token_name=name, address=address, channel=channel)


def create(instance: Instance, actor: Actor, *, user_uid: str | None = None, description: object = "") -> AccessKey:
    """Make a permanent access key for the actor, or for another user of the workspace.

    The secret is only in this answer. Raises Refusal MISSING, INVALID, FORBIDDEN, or LIMIT at the third.
    """
    owner = _owner(instance, actor, user_uid)
    with _attempt(instance, actor, owner, "create an access key") as attempt:
        _refuse_temporary(actor)
        words = _description(description)
        key_id, secret = _new_id_and_secret()

        def change(work: Work) -> AccessKey:
            _refuse_others(work, owner)
            refuse_disabled(users.user(work.connection, owner.id))
            if len(access_keys.of_user(work.connection, owner.id)) >= MAX_PER_USER:
                limit = f"A user has at most {MAX_PER_USER} access keys. Delete one of them first."
                raise Refusal(Kind.LIMIT, "access-keys-exhausted", limit)
            access_keys.add(work.connection, _row(work, owner, key_id, secret, description=words))
            work.record(f"Created access key {key_id} of {owner.name}", target_id=owner.id, level="warning")
            return _shown(_own(work, key_id), owner, secret=secret)

        return attempt.write(change)


def issue_temporary(
    instance: Instance, actor: Actor, *, duration_seconds: object = SHORTEST_LIFE, scopes: tuple[str, ...] | None = None
) -> AccessKey:
    """Make a temporary access key for the actor, with its security token.

    duration_seconds: 900 to 86,400; scopes: what the key may do at most, within what the actor may; None for all of
    that. Raises Refusal INVALID, FORBIDDEN, or LIMIT.
    """
    owner = _owner(instance, actor, None)
    with _attempt(instance, actor, owner, "create a temporary access key") as attempt:
        _refuse_temporary(actor)
        if (
            not isinstance(duration_seconds, int)
            or isinstance(duration_seconds, bool)
            or not SHORTEST_LIFE <= duration_seconds <= LONGEST_LIFE
        ):
            raise invalid("duration_seconds", f"duration_seconds takes {SHORTEST_LIFE} to {LONGEST_LIFE}.")
        bounds = actor.scopes if scopes is None else policy.both(policy.patterns(scopes, field="policy"), actor.scopes)
        if not bounds:
            raise invalid("policy", "This policy names nothing that the proof it is made with may do.")
        life = timedelta(seconds=duration_seconds)
        key_id, secret = _new_id_and_secret()
        security_token = secrets.token_urlsafe(96)

        def change(work: Work) -> AccessKey:
            refuse_disabled(users.user(work.connection, owner.id))
            access_keys.remove_temporary(work.connection, owner.id, ended_by=work.now)
            if access_keys.count_temporary(work.connection, owner.id) >= MAX_TEMPORARY:
                words = f"You have {MAX_TEMPORARY} temporary access keys in force, which is the most; use them."
                raise Refusal(Kind.LIMIT, "temporary-access-keys-exhausted", words)
            row = _row(work, owner, key_id, secret, description="", scopes=bounds)
            row["security_token_hash"] = instance.key.hash_token(security_token)
            row["expires_at"] = min(filter(None, (work.now + life, actor.ends_at)))
            access_keys.add(work.connection, row)
            work.record(f"Created temporary access key {key_id} of {owner.name}", target_id=owner.id)
            return _shown(_own(work, key_id), owner, secret=secret, security_token=security_token)

        return attempt.write(change)


def find(instance: Instance, actor: Actor, *, user_uid: str | None = None) -> tuple[AccessKey, ...]:
    """The permanent access keys of the actor, or of another user of the workspace.

    Raises Refusal MISSING or FORBIDDEN.
    """
    owner = _owner(instance, actor, user_uid)
    with _attempt(instance, actor, owner, "list access keys", read=True) as attempt:
        rows = attempt.read(lambda connection: access_keys.of_user(connection, owner.id))
        return tuple(_shown(row, owner) for row in rows)


def get(instance: Instance, actor: Actor, key_id: str) -> AccessKey:
    """A permanent access key of the actor's workspace. Raises Refusal MISSING or FORBIDDEN."""
    row, owner = _permanent_key(instance, actor, key_id)
    with _attempt(instance, actor, owner, "see an access key", read=True):
        return _shown(row, owner)


def change(
    instance: Instance, actor: Actor, key_id: str, *, active: bool | None = None, description: object = None
) -> AccessKey:
    """Switch a permanent access key on or off, or change its description; None leaves either as it is.

    Raises Refusal MISSING, INVALID or FORBIDDEN.
    """
    _, owner = _permanent_key(instance, actor, key_id)
    with _attempt(instance, actor, owner, "change an access key") as attempt:
        values: dict[str, Any] = {} if active is None else {"active": active}
        if description is not None:
            values["description"] = _description(description)
        if not values:
            raise invalid("status", "Send a status or a description.")

        def run(work: Work) -> AccessKey:
            row = _own(work, key_id)
            _refuse_others(work, owner)
            if active:
                _refuse_wider(work, owner, row)
            access_keys.change(work.connection, key_id, values)
            switched = "" if active is None else " on" if active else " off"
            work.record(
                f"Switched{switched} access key {key_id} of {owner.name}"
                if switched
                else f"Described access key {key_id} of {owner.name}",
                target_id=owner.id,
                level="warning",
            )
            return _shown(_own(work, key_id), owner)

        return attempt.write(run)


def delete(instance: Instance, actor: Actor, key_id: str) -> None:
    """Delete a permanent access key; requests signed with it are refused then. Raises Refusal MISSING or FORBIDDEN."""
    _, owner = _permanent_key(instance, actor, key_id)
    with _attempt(instance, actor, owner, "delete an access key") as attempt:

        def run(work: Work) -> None:
            _own(work, key_id)
            _refuse_others(work, owner)
            access_keys.remove(work.connection, key_id)
            work.record(f"Deleted access key {key_id} of {owner.name}", target_id=owner.id, level="warning")

        attempt.write(run)


def secret_is(instance: Instance, key: AccessKeyRow, secret: str) -> bool:
    """Whether an access key has this secret, for Keyrack's own use."""
    try:
        return hmac.compare_digest(_secret(instance, key).encode(), secret.encode())
    except BadSignature:
        return False


def ensure(instance: Instance, actor: Actor, owner: User, *, key_id: str, secret: str) -> bool:
    """Give a user this access key with this secret; False where that was so already.

    Raises Refusal TAKEN where the id is another user's, INVALID where it is malformed, FORBIDDEN.
    """
    known = instance.database.read(lambda connection: access_keys.get(connection, key_id))
    if known is not None and known.user_id == owner.id and secret_is(instance, known, secret):
        return False
    attempt = Attempt(instance, actor, "people:write", "set an access key", target_kind="access key")
    with attempt:
        if not (key_id.isascii() and key_id.isalnum() and len(key_id) <= LONGEST) or not secret:
            raise Refusal(
                Kind.INVALID,
                "access-key-malformed",
                "An access key's id has up to 128 letters and digits, and its secret is not empty.",
            )

        def run(work: Work) -> bool:
            refuse_exceeding(work, owner)
            row = access_keys.get(work.connection, key_id)
            if row is None:
                new = _row(work, owner, key_id, secret, description="")
                # Marked, as a workspace file removes only access keys that a file made.
                access_keys.add(work.connection, {**new, "details": {**new["details"], DECLARED: True}})
            elif row.user_id != owner.id:
                raise Refusal(Kind.TAKEN, "access-key-taken", "This access key id is another user's.")
            else:
                encrypted = instance.key.encrypt(secret, key_id)
                access_keys.change(work.connection, key_id, {"encrypted_secret": encrypted})
            work.record(f"Set access key {key_id} of {owner.name}", level="warning")
            return True

        return attempt.write(run)


def _attempt(instance: Instance, actor: Actor, owner: User, aim: str, *, read: bool = False) -> Attempt:
    """An attempt on an owner's access keys; for another user it takes the right to deal with people."""
    action = "iam:self" if owner.id == actor.user_id else "people:read" if read else "people:write"
    return Attempt(instance, actor, action, aim, target_kind="access key", target_id=owner.id)


def _owner(instance: Instance, actor: Actor, user_uid: str | None) -> User:
    def question(connection: Connection) -> User:
        if user_uid is not None:
            return lookups.user_with_uid(connection, actor, user_uid)
        return lookups.user(connection, actor, actor.user_id)

    return instance.database.read(question)


def _permanent_key(instance: Instance, actor: Actor, key_id: str) -> tuple[AccessKeyRow, User]:
    """A permanent access key of the actor's workspace, and its user. Raises Refusal MISSING."""
    signer = instance.database.read(lambda connection: access_keys.signer(connection, key_id, ""))
    if signer is None or signer.user.workspace_id != actor.workspace_id or signer.key.security_token_hash is not None:
        raise missing("access key")
    return signer.key, signer.user


def _own(work: Work, key_id: str) -> AccessKeyRow:
    row = access_keys.get(work.connection, key_id)
    if row is None:
        raise missing("access key")
    return row


def _refuse_others(work: Work, owner: User) -> None:
    """Refuse to touch another user's access keys, unless the actor may do all that this user may."""
    if owner.id != work.actor.user_id:
        refuse_exceeding(work, owner)


def _refuse_wider(work: Work, owner: User, row: AccessKeyRow) -> None:
    """Refuse to switch on an access key that may do more than the actor, also one of the actor's own."""
    refusal = policy.exceeds(work.actor, owner.role, owner.policies, row.scopes)
    if refusal is None and work.actor.project not in ("", row.project):
        words = "This access key is not limited to the project that your token is for."
        refusal = Refusal(Kind.FORBIDDEN, "exceeds-own-rights", words)
    if refusal is not None:
        raise refusal


def _refuse_temporary(actor: Actor) -> None:
    """Refuse to make an access key with a temporary one, which is to end."""
    if actor.temporary:
        words = "A temporary access key cannot make access keys; use a token or a permanent access key."
        raise Refusal(Kind.FORBIDDEN, "temporary-access-key", words)


def _description(value: object) -> str:
    if value in (None, ""):
        return ""
    return validation.text(value, field="description", maximum=LONGEST_DESCRIPTION)


def _new_id_and_secret() -> tuple[str, str]:
    key_id = "".join(secrets.choice(_LETTERS) for _ in range(20))
    return key_id, "".join(secrets.choice(_SIGNS) for _ in range(40))


def _row(
    work: Work, owner: User, key_id: str, secret: str, *, description: str, scopes: tuple[str, ...] | None = None
) -> dict[str, Any]:
    # An access key may do no more than the proof that made it, and ends with it where the proof's end is a limit.
    bounds = work.actor.scopes if scopes is None else scopes
    details: dict[str, Any] = {} if bounds == ("*",) else {"scopes": list(bounds)}
    if work.actor.project:
        details["project"] = work.actor.project
    return {
        "id": key_id,
        "user_id": owner.id,
        "encrypted_secret": work.instance.key.encrypt(secret, key_id),
        "description": description,
        "active": True,
        "details": details,
        "created_at": work.now,
        "expires_at": work.actor.ends_at,
    }


def _shown(row: AccessKeyRow, owner: User, *, secret: str = "", security_token: str = "") -> AccessKey:
    return AccessKey(
        id=row.id,
        user_uid=owner.uid,
        description=row.description,
        active=row.active,
        created_at=row.created_at,
        expires_at=row.expires_at,
        secret=secret,
        security_token=security_token,
    )
