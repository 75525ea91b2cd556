"""Passwords as Argon2id hashes; must never keep, log or answer a password."""

from __future__ import annotations

from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from keyrack.errors import Refusal, invalid

LONGEST = 1024
SHORTEST = 8

# 19 MiB and two passes, OWASP's first recommendation; four at once bound what a flood of sign-ins can take.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_turns = BoundedSemaphore(4)
# Of the same parameters as _hasher's, and of a password that nobody kept: what a wrong name is checked against.
NOBODYS_HASH = "$argon2id$v=19$m=19456,t=2,p=1$ndRJAQ+tbGEwGFqHKnZTZg$h9CKtUVI0pP8KSi/4MpPj7zceKfwqyHUIL4AGBVHiuE"


class Hashed(str):
    """The hash to keep of a password, made beforehand, so that no transaction waits for it."""


def check(password: str) -> None:
    """Nothing for a password of 8 to 1,024 characters; raises Refusal INVALID for others."""
    problem = _problem(password)
    if problem is not None:
        raise problem


def hash_password(password: str) -> str:
    """The hash to keep of a password of 8 to 1,024 characters; raises Refusal INVALID."""
    if isinstance(password, Hashed):
        return str(password)
    check(password)
    with _turns:
        return _hasher.hash(password)


def verify(hashed: str | None, password: str) -> bool:
    """Whether this is the password; as slow when there is none, so that names cannot be told by timing."""
    if len(password) > LONGEST:
        return False
    with _turns:
        try:
            return _hasher.verify(hashed or NOBODYS_HASH, password) and hashed is not None
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            return False


def _problem(password: str) -> Refusal | None:
    if not SHORTEST <= len(password) <= LONGEST:
        return invalid("password", f"A password has {SHORTEST} to {LONGEST} characters.")
    try:
        password.encode()
    except UnicodeEncodeError:
        return invalid("password", "This password holds characters that cannot be stored.")
    return None
