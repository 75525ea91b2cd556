"""Second factors: codes of an app (TOTP), recovery codes, the rows of passkeys; must store no code in clear."""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import quote

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from sqlalchemy import Connection

from keyrack.core.instance import Instance
from keyrack.core.lookups import own_user
from keyrack.core.people import browser_state, throttle
from keyrack.core.people.rights import refuse_exceeding
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, User
from keyrack.store.people import authenticators, users
from keyrack.store.people.authenticators import Authenticator

TOTP_KIND, PASSKEY, RECOVERY = "totp", "passkey", "recovery"
SECOND = (TOTP_KIND, PASSKEY)
STEP_SECONDS = 30
DIGITS = 6
NEIGHBOURS = (0, -1, 1)
"""The clock of a phone may differ by these numbers of steps."""
RECOVERY_CODES = 10
MAX = 20
ENROLMENT_LASTS = timedelta(minutes=15)
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


@dataclass(frozen=True, slots=True)
class CodesEnrolment:
    """An app's key that does not count yet.

    secret, address: for the app, as text and as otpauth URI; carried: what the browser sends back with a code of it.
    """

    secret: str
    address: str
    carried: str


def is_asked(work: Work, user: User) -> bool:
    """Whether this user needs a second factor beside the password."""
    return authenticators.any_of_user(work.connection, user.id, SECOND)


def own(instance: Instance, actor: Actor) -> tuple[Authenticator, ...]:
    """The actor's second factors and recovery codes, oldest first."""
    with Attempt(instance, actor, "iam:self", "see their own second factors", target_kind="authenticator") as attempt:
        return attempt.read(lambda connection: authenticators.of_user(connection, actor.user_id or 0))


@dataclass(frozen=True, slots=True)
class SecondFactors:
    """The ways in which a user can prove again who they are."""

    password: bool
    codes: bool
    passkeys: bool


def ways(instance: Instance, actor: Actor) -> SecondFactors:
    """The ways in which the actor can prove again who they are, for pages to show."""

    def question(connection: Connection) -> SecondFactors:
        kinds = {held.kind for held in authenticators.of_user(connection, actor.user_id or 0)}
        has_password = users.password_hash(connection, actor.user_id or 0) is not None
        return SecondFactors(has_password, TOTP_KIND in kinds, PASSKEY in kinds)

    return instance.database.read(question)


def begin_totp(instance: Instance, actor: Actor) -> CodesEnrolment:
    """A new key for an app; nothing is stored until a code of it is entered."""
    secret = base64.b32encode(secrets.token_bytes(20)).decode()
    carried = browser_state.pack(instance, f"totp of {actor.user_id}", {"secret": secret}, lasts=ENROLMENT_LASTS)
    return _enrolment(actor, secret, carried)


def enrolment(instance: Instance, actor: Actor, text: str) -> CodesEnrolment | None:
    """The enrolment that a browser sent back, None where it is too old or of another user."""
    begun = browser_state.unpack(instance, f"totp of {actor.user_id}", text)
    if begun is None:
        return None
    return _enrolment(actor, begun["secret"], text)


def _enrolment(actor: Actor, secret: str, carried: str) -> CodesEnrolment:
    label = quote(f"Keyrack:{actor.name}")
    return CodesEnrolment(secret, f"otpauth://totp/{label}?secret={secret}&issuer=Keyrack", carried)


def finish_totp(instance: Instance, actor: Actor, text: str, code: str) -> tuple[str, ...]:
    """Ask the actor for codes of an app from now on. Answers recovery codes, shown only this once, if there were none.

    text: CodesEnrolment.carried. Raises Refusal INVALID or LIMIT.
    """
    with Attempt(instance, actor, "iam:self", "ask for codes of an app", target_kind="authenticator") as attempt:
        begun = enrolment(instance, actor, text)
        if begun is None:
            raise invalid(
                "code",
                f"This took longer than {ENROLMENT_LASTS // timedelta(minutes=1)} minutes; begin again.",
                "enrolment-ended",
            )
        step = _matching(base64.b32decode(begun.secret), code, int(instance.now().timestamp()), after=0)
        if step is None:
            raise invalid("code", "This is not the code that the app shows; look at the phone's clock too.")

        def run(work: Work) -> tuple[str, ...]:
            user = own_user(work, actor.user_id)
            authenticators.remove_kind(work.connection, user.id, TOTP_KIND)
            number = _add(work, user, TOTP_KIND, "Codes from an app", b"", step=step)
            encrypted = instance.key.encrypt(begun.secret, _context(number))
            authenticators.change(work.connection, number, {"secret": encrypted})
            codes = ensure_recovery(work, user)
            work.record(f"{user.name} signs in with codes from an app from now on", target_id=number, level="warning")
            return codes

        return attempt.write(run)


def ensure_recovery(work: Work, user: User) -> tuple[str, ...]:
    """New recovery codes for a user who has none left, else ()."""
    if any(held.kind == RECOVERY for held in authenticators.of_user(work.connection, user.id)):
        return ()
    codes = tuple(_new_code() for _ in range(RECOVERY_CODES))
    for number, code in enumerate(codes, 1):
        _add(work, user, RECOVERY, f"Recovery code {number}", _hash(work.instance, user, code))
    return codes


def renew_recovery(instance: Instance, actor: Actor) -> tuple[str, ...]:
    """New recovery codes in place of the old ones, shown only this once."""
    with Attempt(instance, actor, "iam:self", "make recovery codes", target_kind="authenticator") as attempt:

        def run(work: Work) -> tuple[str, ...]:
            user = own_user(work, actor.user_id)
            authenticators.remove_kind(work.connection, user.id, RECOVERY)
            codes = ensure_recovery(work, user)
            work.record(f"{user.name} has new recovery codes", target_id=user.id, level="warning")
            return codes

        return attempt.write(run)


def remove(instance: Instance, actor: Actor, authenticator_id: int) -> None:
    """Remove an app or a passkey of the actor; the recovery codes go with the last one. Raises Refusal MISSING."""
    attempt = Attempt(
        instance, actor, "iam:self", "remove a second factor", target_kind="authenticator", target_id=authenticator_id
    )
    with attempt:

        def run(work: Work) -> None:
            user = own_user(work, actor.user_id)
            own = {held.id: held for held in authenticators.of_user(work.connection, user.id)}
            removed = own.get(authenticator_id)
            if removed is None or removed.kind not in SECOND:
                raise missing("second factor")
            authenticators.remove(work.connection, removed.id)
            if not authenticators.any_of_user(work.connection, user.id, SECOND):
                authenticators.remove_kind(work.connection, user.id, RECOVERY)
            work.record(
                f"{user.name} signs in without {removed.name} from now on", target_id=removed.id, level="warning"
            )

        attempt.write(run)


def has_any(instance: Instance, actor: Actor, user_id: int) -> bool:
    """Whether a user needs a second factor beside the password. Raises Refusal FORBIDDEN."""
    aim = "see how somebody signs in"
    with Attempt(instance, actor, "people:read", aim, target_kind="user", target_id=user_id) as attempt:

        def question(connection: Connection) -> bool:
            user = users.user(connection, user_id)
            own = user is not None and user.workspace_id == actor.workspace_id
            return own and authenticators.any_of_user(connection, user_id, SECOND)

        return attempt.read(question)


def reset(instance: Instance, actor: Actor, user_id: int) -> None:
    """Remove all second factors of a user who has lost them. Raises Refusal MISSING or FORBIDDEN."""
    attempt = Attempt(
        instance, actor, "people:write", "take somebody's second factors away", target_kind="user", target_id=user_id
    )
    with attempt:

        def run(work: Work) -> None:
            user = own_user(work, user_id)
            refuse_exceeding(work, user)
            for kind in (*SECOND, RECOVERY):
                authenticators.remove_kind(work.connection, user.id, kind)
            work.record(f"{user.name} signs in by password alone again", target_id=user.id, level="warning")

        attempt.write(run)


def prove_code(instance: Instance, actor: Actor, code: str) -> None:
    """Check a code of somebody who is signed in. Raises Refusal UNAUTHENTICATED or THROTTLED."""
    with Attempt(instance, actor, "iam:self", "prove who they are by a code", target_kind="authenticator") as attempt:

        def run(work: Work) -> None:
            use(work, own_user(work, actor.user_id), code)
            work.record(f"{actor.name} entered a code")

        account = throttle.name_of("second", str(actor.user_id))
        instance.throttle.prove(throttle.PASSWORD, actor.address, account, lambda: attempt.write(run))


def use(work: Work, user: User, code: str) -> str:
    """Use a code up; answers "code" or "recovery code". Raises Refusal UNAUTHENTICATED."""
    typed = "".join(code.split()).replace("-", "").lower()
    for held in authenticators.of_user(work.connection, user.id):
        if held.kind == TOTP_KIND:
            key = base64.b32decode(work.instance.key.decrypt(held.secret, _context(held.id)))
            step = _matching(key, typed, int(work.now.timestamp()), after=held.step or 0)
            if step is not None:
                authenticators.change(work.connection, held.id, {"step": step, "last_used_at": work.now})
                return "code"
        elif held.kind == RECOVERY and hmac.compare_digest(held.secret, _hash(work.instance, user, typed)):
            authenticators.remove(work.connection, held.id)
            return "recovery code"
    raise Refusal(Kind.UNAUTHENTICATED, "code-wrong", "This code is wrong, or it was used already.", field="code")


def check(work: Work, user: User, code: str | None, *, address: str) -> bool:
    """Use a code up if this user needs a second factor; answers whether they do.

    Raises Refusal UNAUTHENTICATED or THROTTLED.
    """
    if not is_asked(work, user):
        return False
    if code is None:
        words = "A password alone does not sign this user in: send a code with it, or use an access key or a token."
        raise Refusal(Kind.UNAUTHENTICATED, "second-proof-asked", words)
    # One count of guesses for every API that takes codes.
    account = throttle.name_of("second", str(user.id))
    work.instance.throttle.prove(throttle.PASSWORD, address, account, lambda: use(work, user, code))
    return True


def held_password(work: Work, user: User) -> str | None:
    """The hash of a user's password, to compare it with the one that was proven."""
    return users.password_hash(work.connection, user.id)


def add_passkey(work: Work, user: User, *, name: str, credential: bytes, public_key: bytes, count: int) -> int:
    """Store a passkey of a user; answers its id. Raises Refusal TAKEN or LIMIT."""
    if authenticators.by_credential(work.connection, credential) is not None:
        raise Refusal(Kind.TAKEN, "passkey-taken", "This passkey is registered already.")
    return _add(work, user, PASSKEY, name, public_key, credential=credential, step=count)


def _add(
    work: Work, user: User, kind: str, name: str, secret: bytes, *, credential: bytes | None = None, step: int = 0
) -> int:
    if sum(held.kind == kind for held in authenticators.of_user(work.connection, user.id)) >= MAX:
        raise Refusal(Kind.LIMIT, "too-many-proofs", f"Nobody has more than {MAX} of these; take one away first.")
    values = {
        "user_id": user.id,
        "kind": kind,
        "name": name,
        "secret": secret,
        "credential": credential,
        "step": step,
        "created_at": work.now,
    }
    return authenticators.add(work.connection, values)


def _matching(key: bytes, code: str, now: int, *, after: int) -> int | None:
    """The step whose code this is, later than `after`; None where there is none."""
    typed = "".join(code.split())
    if len(typed) != DIGITS or not (typed.isascii() and typed.isdigit()):
        return None
    totp = TOTP(key, DIGITS, SHA1(), STEP_SECONDS, enforce_key_length=False)  # noqa: S303 — what apps can do
    current_step = now // STEP_SECONDS
    for step in (current_step + offset for offset in NEIGHBOURS):
        is_right = hmac.compare_digest(totp.generate(step * STEP_SECONDS), typed.encode())
        if is_right and step > after:
            return step
    return None


def _new_code() -> str:
    text = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    return f"{text[:4]}-{text[4:8]}-{text[8:]}"


def _hash(instance: Instance, user: User, code: str) -> bytes:
    plain = code.replace("-", "").lower()
    return instance.key.hash_token(f"recovery code of {user.id}\x00{plain}")


def _context(authenticator_id: int) -> str:
    return f"totp {authenticator_id}"
