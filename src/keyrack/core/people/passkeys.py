"""Passkeys (WebAuthn): register them, and check them beside a password or alone; must trust no browser.

A challenge is not stored: it carries a keyed hash for one browser and CHALLENGE_LASTS, and its answer uses it up.
`webauthn` is imported where somebody uses a passkey, as it takes seven megabytes that most services never need.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from keyrack.core import validation
from keyrack.core.instance import Instance
from keyrack.core.lookups import own_user
from keyrack.core.people import second_factors
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, User
from keyrack.store.people import authenticators, users, web_sessions

CHALLENGE_LASTS = timedelta(minutes=5)
LONGEST = 20_000


@dataclass(frozen=True, slots=True)
class Browser:
    """The browser that is asked for a passkey.

    origin: that of the page, such as https://keys.example.org; host: the relying party's id; cookie: a challenge counts
    only for this one.
    """

    origin: str
    host: str
    cookie: str


def registration(instance: Instance, actor: Actor, browser: Browser) -> str:
    """The options, as JSON, with which a browser makes a passkey."""
    import webauthn
    from webauthn.helpers import structs

    with Attempt(instance, actor, "iam:self", "register a passkey", target_kind="authenticator") as attempt:
        own = attempt.read(lambda connection: authenticators.of_user(connection, actor.user_id or 0))
        options = webauthn.generate_registration_options(
            rp_id=browser.host,
            rp_name="Keyrack",
            user_id=instance.key.hash_token(f"passkeys of {actor.user_id}"),
            user_name=actor.name,
            challenge=_challenge(instance, browser),
            authenticator_selection=structs.AuthenticatorSelectionCriteria(
                resident_key=structs.ResidentKeyRequirement.PREFERRED,
                user_verification=structs.UserVerificationRequirement.PREFERRED,
            ),
            exclude_credentials=[
                structs.PublicKeyCredentialDescriptor(id=passkey.credential)
                for passkey in own
                if passkey.credential is not None
            ],
        )
        return webauthn.options_to_json(options)


def register(instance: Instance, actor: Actor, browser: Browser, *, name: str, answer: str) -> tuple[str, ...]:
    """Store the passkey that a browser made. Answers recovery codes, shown only this once, if there were none.

    answer: the browser's, as JSON. Raises Refusal INVALID, TAKEN or LIMIT.
    """
    import webauthn
    from webauthn.helpers.exceptions import WebAuthnException

    with Attempt(instance, actor, "iam:self", "register a passkey", target_kind="authenticator") as attempt:
        title = validation.new_name(name)
        challenge = _challenge_of(answer)
        _check_challenge(instance, browser, challenge)
        try:
            verified = webauthn.verify_registration_response(
                credential=answer,
                expected_challenge=challenge,
                expected_rp_id=browser.host,
                expected_origin=browser.origin,
            )
        except (WebAuthnException, ValueError):
            raise invalid("answer", "The browser's answer is not that of a passkey made here; try again.") from None

        def run(work: Work) -> tuple[str, ...]:
            _spend(work, challenge)
            user = own_user(work, actor.user_id)
            authenticator_id = second_factors.add_passkey(
                work,
                user,
                name=title,
                credential=verified.credential_id,
                public_key=verified.credential_public_key,
                count=verified.sign_count,
            )
            codes = second_factors.ensure_recovery(work, user)
            work.record(f"{user.name} has the passkey {title}", target_id=authenticator_id, level="warning")
            return codes

        return attempt.write(run)


def options(instance: Instance, browser: Browser, *, user_id: int | None = None) -> str:
    """The options, as JSON, with which a browser proves a passkey: one of a user, or, for None, of anybody.

    "" for a user who has none.
    """
    import webauthn
    from webauthn.helpers import structs

    allowed: list[structs.PublicKeyCredentialDescriptor] | None = None
    if user_id is not None:
        own = instance.database.read(lambda connection: authenticators.of_user(connection, user_id))
        allowed = [
            structs.PublicKeyCredentialDescriptor(id=passkey.credential)
            for passkey in own
            if passkey.credential is not None
        ]
        if not allowed:
            return ""
    asked = webauthn.generate_authentication_options(
        rp_id=browser.host,
        challenge=_challenge(instance, browser),
        allow_credentials=allowed,
        user_verification=(
            structs.UserVerificationRequirement.REQUIRED
            if user_id is None
            else structs.UserVerificationRequirement.PREFERRED
        ),
    )
    return webauthn.options_to_json(asked)


def owner(instance: Instance, answer: str) -> int | None:
    """The id of the user whose passkey an answer names, None where there is none; this proves nothing yet."""
    credential = _credential(answer)
    passkey = instance.database.read(lambda connection: authenticators.by_credential(connection, credential))
    return None if passkey is None else passkey.user_id


def use(work: Work, browser: Browser, answer: str, *, alone: bool) -> User:
    """The user whose passkey answered; uses the challenge up. Raises Refusal UNAUTHENTICATED.

    1. The challenge is for this browser, in time, and unused. 2. Passkey and user exist, and the user is not disabled.
    3. The signature holds.

    alone: nothing else was proven, so the authenticator must have verified its user by a fingerprint or a PIN.
    """
    import webauthn
    from webauthn.helpers.exceptions import WebAuthnException

    wrong = Refusal(Kind.UNAUTHENTICATED, "passkey-wrong", "This passkey does not open anything here.", field="answer")
    try:  # 1
        challenge, credential = _challenge_of(answer), _credential(answer)
        _check_challenge(work.instance, browser, challenge)
        _spend(work, challenge)
    except Refusal:
        raise wrong from None
    passkey = authenticators.by_credential(work.connection, credential)
    user = None if passkey is None else users.user(work.connection, passkey.user_id)
    if passkey is None or user is None or user.disabled_at is not None:  # 2
        raise wrong
    try:  # 3
        proven = webauthn.verify_authentication_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=browser.host,
            expected_origin=browser.origin,
            credential_public_key=passkey.secret,
            credential_current_sign_count=passkey.step or 0,
            require_user_verification=alone,
        )
    except (WebAuthnException, ValueError):
        raise wrong from None
    authenticators.change(work.connection, passkey.id, {"step": proven.new_sign_count, "last_used_at": work.now})
    return user


def prove(instance: Instance, actor: Actor, browser: Browser, answer: str) -> None:
    """Check a passkey of somebody who is signed in. Raises Refusal UNAUTHENTICATED."""
    with Attempt(
        instance, actor, "iam:self", "prove who they are by a passkey", target_kind="authenticator"
    ) as attempt:

        def run(work: Work) -> None:
            if use(work, browser, answer, alone=False).id != actor.user_id:
                raise Refusal(Kind.UNAUTHENTICATED, "passkey-wrong", "This passkey is somebody else's.")
            work.record(f"{actor.name} showed a passkey")

        attempt.write(run)


def _challenge(instance: Instance, browser: Browser) -> bytes:
    ends = int((instance.now() + CHALLENGE_LASTS).timestamp())
    head = secrets.token_bytes(16) + ends.to_bytes(8, "big")
    return head + _mark(instance, browser, head)


def _mark(instance: Instance, browser: Browser, head: bytes) -> bytes:
    return instance.key.hash_token(f"challenge {browser.origin} {browser.cookie}\x00{head.hex()}")[:16]


def _check_challenge(instance: Instance, browser: Browser, challenge: bytes) -> None:
    head, mark = challenge[:24], challenge[24:]
    ours = bool(browser.cookie) and hmac.compare_digest(mark, _mark(instance, browser, head))
    if not ours or int.from_bytes(head[16:], "big") < instance.now().timestamp():
        raise invalid("answer", "This took longer than five minutes, or began in another browser; try again.")


def _spend(work: Work, challenge: bytes) -> None:
    mark = hashlib.sha256(challenge).digest()
    if not web_sessions.use_once(work.connection, mark, work.now + CHALLENGE_LASTS * 2):
        raise invalid("answer", "This answer was used already; try again.")


def _challenge_of(answer: str) -> bytes:
    """The challenge that an answer is for, as it says."""
    from webauthn import base64url_to_bytes

    try:
        client = _parsed(answer)["response"]["clientDataJSON"]
        return base64url_to_bytes(json.loads(base64url_to_bytes(client))["challenge"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise invalid("answer", "The browser's answer cannot be read; try again.") from None


def _credential(answer: str) -> bytes:
    from webauthn import base64url_to_bytes

    try:
        return base64url_to_bytes(_parsed(answer)["id"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise invalid("answer", "The browser's answer cannot be read; try again.") from None


def _parsed(answer: str) -> Any:
    if len(answer) > LONGEST:
        raise ValueError("too long")
    return json.loads(answer)
