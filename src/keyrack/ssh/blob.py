"""Reads the binary half of a public key, field by field, for the types Keyrack takes; it knows nothing of text lines.

The fields are those of RFC 4253 section 6.6 (RSA), RFC 5656 section 3.1 (ECDSA), RFC 8709 section 4
(Ed25519) and OpenSSH's PROTOCOL.u2f (the sk- types, whose private half lives in a security key).
"""

from __future__ import annotations

from typing import Callable, Dict, Optional, Tuple

from keyrack.ssh.curves import ed25519_problem, nist_problem
from keyrack.ssh.key_problem import KeyProblem
from keyrack.ssh.names import hidden_character
from keyrack.ssh.weak import rsa_problem
from keyrack.ssh.wire import Reader, WireError

RSA_BITS = (2048, 16384)  # OpenSSH refuses larger ones, so such a login would never work
RSA_EXPONENT_BITS = 64
RSA_SMALLEST_EXPONENT = 17
_LONGEST_APPLICATION = 1024

_COPY_AGAIN = "Copy the whole line from your .pub file again."
_NEW_PAIR = "Make a new pair with: ssh-keygen -t ed25519"


def read_blob(key_type: str, blob: bytes, *, mathematics: bool = True) -> int:
    """The size in bits of the key in `blob`, which must be exactly one key of `key_type` (one of TYPES).

    `mathematics=False` leaves out what needs arithmetic (the points, the RSA numbers' weaknesses) and is
    only for keys that were read with it before. Raises KeyProblem.
    """
    reader = Reader(blob)
    try:
        if reader.string("type") != key_type.encode("ascii"):
            raise KeyProblem(
                "type-mismatch",
                f"The line says {key_type}, but the key inside is of another type. {_COPY_AGAIN}",
            )
        bits = _READERS[key_type](reader, mathematics)
        if key_type == "ssh-ed25519" and reader.rest[:4] == b"\0\0\0\x40":
            raise KeyProblem("private-key", PRIVATE_KEY)  # RFC 8709's private form: the secret follows
        reader.end()
    except WireError as problem:
        raise KeyProblem("malformed", f"The key is damaged: {problem}. {_COPY_AGAIN}") from None
    return bits


PRIVATE_KEY = (
    "This is a private key. It was not stored, but it has left your machine: treat it as lost. "
    "Make a new pair with: ssh-keygen -t ed25519 and paste the one line of the file that ends in .pub."
)


def _malformed(problem: Optional[str]) -> None:
    if problem:
        raise KeyProblem("malformed", f"No login could ever work or be safe with this key: {problem}. {_NEW_PAIR}")


def _read_rsa(reader: Reader, mathematics: bool) -> int:
    e = reader.mpint("exponent")
    n = reader.mpint("modulus")
    bits = n.bit_length()
    low, high = RSA_BITS
    if not low <= bits <= high:
        advice = "Make a new pair with: ssh-keygen -t ed25519 (or ssh-keygen -t rsa -b 3072)"
        raise KeyProblem("rsa-size", f"This RSA key has {bits} bits; {low} to {high} are accepted. {advice}")
    if e % 2 == 0 or e < RSA_SMALLEST_EXPONENT or e.bit_length() > RSA_EXPONENT_BITS:
        words = f"must be odd, at least {RSA_SMALLEST_EXPONENT} and at most {RSA_EXPONENT_BITS} bits long"
        raise KeyProblem("rsa-exponent", f"The exponent of an RSA key {words}; this one is not. {_NEW_PAIR}")
    problem = rsa_problem(n, e) if mathematics else None
    if problem:
        raise KeyProblem("weak", f"This key is weak: {problem}. {_NEW_PAIR}")
    return bits


def _read_ed25519(reader: Reader, mathematics: bool) -> int:
    point = reader.string("point")
    if len(point) != 32:
        _malformed("an Ed25519 key has exactly 32 bytes")
    problem = ed25519_problem(point) if mathematics else None
    if problem:
        raise KeyProblem("weak", f"This is not a sound Ed25519 key: {problem}. {_NEW_PAIR}")
    return 256


def _read_nist(curve: str, bits: int) -> Callable[[Reader, bool], int]:
    def read(reader: Reader, mathematics: bool) -> int:
        if reader.string("curve") != curve.encode("ascii"):
            _malformed(f"it names another curve than {curve}")
        point = reader.string("point")
        if mathematics:
            _malformed(nist_problem(curve, point))
        return bits

    return read


def _with_application(read: Callable[[Reader, bool], int]) -> Callable[[Reader, bool], int]:
    def read_both(reader: Reader, mathematics: bool) -> int:
        bits = read(reader, mathematics)
        application = reader.string("application")
        try:
            text = application.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if not text or len(application) > _LONGEST_APPLICATION or hidden_character(text):
            _malformed("the application name of its security key is not plain text")
        return bits

    return read_both


_READERS: Dict[str, Callable[[Reader, bool], int]] = {
    "ssh-ed25519": _read_ed25519,
    "ecdsa-sha2-nistp256": _read_nist("nistp256", 256),
    "ecdsa-sha2-nistp384": _read_nist("nistp384", 384),
    "ecdsa-sha2-nistp521": _read_nist("nistp521", 521),
    "ssh-rsa": _read_rsa,
    "sk-ssh-ed25519@openssh.com": _with_application(_read_ed25519),
    "sk-ecdsa-sha2-nistp256@openssh.com": _with_application(_read_nist("nistp256", 256)),
}

TYPES: Tuple[str, ...] = tuple(_READERS)
"""Every key type Keyrack takes: all of OpenSSH's except DSA, which OpenSSH itself has given up."""
