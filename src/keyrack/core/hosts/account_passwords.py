"""Passwords of accounts on hosts, as crypt(3) hashes that hosts set; must never keep, log or answer a password."""

from __future__ import annotations

import subprocess
import unicodedata
from threading import BoundedSemaphore

from keyrack.errors import Kind, Refusal, invalid

SHORTEST = 8
# openssl passwd(1) reads 256 bytes of a line and silently drops the rest.
LONGEST_BYTES = 255
SECONDS = 20

_turns = BoundedSemaphore(4)


def hash_for_host(password: object) -> str:
    """The SHA-512 crypt hash ("$6$…") of a password, which has 8 characters to 255 bytes.

    Every libc's crypt(3) knows this form, and the program openssl makes it. Raises Refusal INVALID for the password,
    UNAVAILABLE without openssl.
    """
    content = as_bytes(password)
    with _turns:
        try:
            # Through standard input, as every account of the machine can read arguments.
            ended = subprocess.run(
                ["openssl", "passwd", "-6", "-stdin"],
                input=content + b"\n",
                capture_output=True,
                check=False,
                timeout=SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _no_openssl() from error
    hashed = ended.stdout.decode("ascii", "replace").strip()
    if ended.returncode != 0 or not hashed.startswith("$6$"):
        raise _no_openssl()
    return hashed


def as_bytes(password: object) -> bytes:
    """A password that a host may be given, as its bytes. Raises Refusal INVALID."""
    if not isinstance(password, str):
        raise invalid("password", "A password is text.")
    try:
        content = password.encode()
    except UnicodeEncodeError:
        raise invalid("password", "The password holds a character that cannot be typed at a login.") from None
    if any(unicodedata.category(character) == "Cc" for character in password):
        raise invalid("password", "The password holds a line break or another control character.")
    if len(password) < SHORTEST:
        raise invalid("password", f"A password has at least {SHORTEST} characters.", "password-short")
    if len(content) > LONGEST_BYTES:
        raise invalid("password", f"A password has at most {LONGEST_BYTES} bytes.", "password-long")
    return content


def _no_openssl() -> Refusal:
    return Refusal(
        Kind.UNAVAILABLE,
        "openssl-missing",
        "The password cannot be hashed: the program openssl did not run. Install it beside the service.",
    )
