"""Passwords as Argon2id hashes; must never store, log or answer a password."""

from __future__ import annotations

from threading import BoundedSemaphore

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from keyrack.errors import Refusal, invalid

LONGEST = 1024
SHORTEST = 8

# 19 MiB and two passes, as OWASP recommends first. Four at once, so that a flood of sign-ins takes bounded memory.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_turns = BoundedSemaphore(4)
# Checked for names that nobody has, so that it takes as long: with _hasher's parameters, of a password nobody knows.
NOBODYS_HASH = "$argon2id$v=19$m=19456,t=2,p=1$ndRJAQ+tbGEwGFqHKnZTZg$h9CKtUVI0pP8KSi/4MpPj7zceKfwqyHUIL4AGBVHiuE"


class Hashed(str):
    """A hash that was made beforehand, so that no transaction waits for it."""


def check(password: str) -> None:
    """Raises Refusal INVALID unless a password has 8 to 1,024 characters."""
    problem = _problem(password)
    if problem is not None:
        raise problem


def hash_password(password: str) -> str:
    """The hash to store for a password of 8 to 1,024 characters. Raises Refusal INVALID."""
    if isinstance(password, Hashed):
        return str(password)
    check(password)
    with _turns:
        return _hasher.hash(password)


def verify(hashed: str | None, password: str) -> bool:
    """Whether this is the password; takes as long where there is no hash, so that timing tells no names."""
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
