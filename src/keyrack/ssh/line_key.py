"""Reads the key of an authorized_keys line as leniently as sshd does; must not decide whether Keyrack accepts it.

Source: OpenSSH 9.2, sshkey.c (sshkey_read, sshkey_from_blob), ssh-rsa.c, ssh-ecdsa.c, ssh-ed25519.c, sshbuf-getput-*.c.
sshd accepts several spellings of one key: names of signature algorithms as the type, other type names inside the blob,
numbers with leading zeros. All of them are read as the same key with the same fingerprint, as in sshd.
"""

from __future__ import annotations

import binascii
import re
from typing import Dict, NamedTuple, Optional, Tuple

from keyrack.ssh.curves import nist_problem
from keyrack.ssh.fingerprint import of_blob
from keyrack.ssh.wire import Reader, WireError, mpint, string

SMALLEST_RSA = 1024  # bits; OpenSSH's own limit, far below ours
_LARGEST_NUMBER = 2048  # bytes (SSHBUF_MAX_BIGNUM)

_RSA, _DSA, _ED25519, _SK_ED25519 = "ssh-rsa", "ssh-dss", "ssh-ed25519", "sk-ssh-ed25519@openssh.com"
_SK_ECDSA, _WEBAUTHN = "sk-ecdsa-sha2-nistp256@openssh.com", "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"
_ECDSA = {f"ecdsa-sha2-nistp{bits}": f"nistp{bits}" for bits in (256, 384, 521)}

# Every name that sshd accepts as the type in front of a key (`ssh -Q key`, `ssh -Q key-sig`), and the type it means.
NAMES: Dict[str, str] = {
    **{name: name for name in (_RSA, _DSA, _ED25519, _SK_ED25519, _SK_ECDSA, *_ECDSA)},
    "rsa-sha2-256": _RSA,
    "rsa-sha2-512": _RSA,
    _WEBAUTHN: _SK_ECDSA,
}
# Inside a key, the short names too, in any case (sshkey_type_from_name); "ECDSA" names no curve there.
_SHORT = {"rsa": _RSA, "dsa": _DSA, "ed25519": _ED25519, "ed25519-sk": _SK_ED25519}
_NO_SHORT = (10, 0)  # tested: 9.2 accepts them, 10.0 does not; between these they are reported as accepted
_CERTIFICATE = re.compile(r"[a-z0-9-]+-cert-v01@openssh\.com")
_OF_CERTIFICATES = "-cert-v01@openssh.com"
# How many strings or numbers of a certificate are its key's, behind its type and a nonce (PROTOCOL.certkeys).
_PARTS = {_RSA: 2, _DSA: 4, _ED25519: 1, _SK_ED25519: 2, _SK_ECDSA: 3, **dict.fromkeys(_ECDSA, 2)}
# The signature algorithms with which a key of a type can be used (PubkeyAcceptedAlgorithms).
_ALGORITHMS = {_RSA: ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"), _SK_ECDSA: (_SK_ECDSA, _WEBAUTHN)}


class SshdRules(NamedTuple):
    """What an sshd requires of a key. accepted: PubkeyAcceptedAlgorithms, empty: its default, all but DSA;
    smallest_rsa: bits (RequiredRSASize); version: OpenSSH's, as in 9.2; tz: its time zone as in TZ, for a reader in a
    separate process, None: this process's.
    """

    accepted: str = ""
    smallest_rsa: int = SMALLEST_RSA
    version: Tuple[int, int] = (9, 2)
    tz: Optional[str] = None


USUAL_RULES = SshdRules()


class LineKey(NamedTuple):
    """The key of a line. type: the key's, never a signature algorithm; fingerprint and encoded: None and empty where it
    cannot be read; problem: why sshd lets nobody in with it.
    """

    type: str
    encoded: str
    comment: str
    fingerprint: Optional[str]
    problem: Optional[str]


def read_key(text: str, rules: SshdRules) -> Optional[LineKey]:
    """The key at the start of `text` (one character a byte); None when no name of a type stands there."""
    fields = re.match(r"([^ \t]+)[ \t]+([^ \t]+)[ \t]*(.*)", text, re.DOTALL)
    if fields is None:
        return None
    name, encoded, comment = fields.groups()
    known = NAMES.get(name)
    if known is None and name in rules.accepted.split(",") and "-cert" not in name:
        return _of_a_newer_type(name, encoded, comment)
    if known is None and not _CERTIFICATE.fullmatch(name):
        return None
    blob = _decoded(encoded)
    if blob is None:
        return LineKey(known or name, "", comment, None, "the key is not valid base64")
    if known is None:
        encoded = _base64(blob)
        return LineKey(name, encoded, comment, of_blob(blob), "a certificate opens nothing from this file")
    try:
        own, bits, problem = _canonical(known, blob, rules)
    except (WireError, UnicodeDecodeError):
        return LineKey(known, "", comment, None, "the key is damaged")
    if problem is not None:
        return LineKey(known, "", comment, None, problem)
    return LineKey(known, _base64(own), comment, of_blob(own), _refused(known, bits, rules))


def certified(certificate: LineKey) -> Optional[LineKey]:
    """The key that a certificate of a line is for; None where it is none that can be read."""
    name = certificate.type.replace(_OF_CERTIFICATES, "")
    known = NAMES.get(name, NAMES.get(f"{name}@openssh.com"))
    blob = _decoded(certificate.encoded)
    if known is None or blob is None:
        return None
    reader = Reader(blob)
    try:
        reader.string()
        reader.string()
        parts = [string(reader.string()) for _ in range(_PARTS[known])]
    except WireError:
        return None
    return read_key(f"{known} {_base64(string(known.encode('ascii')) + b''.join(parts))}", USUAL_RULES)


def is_certificate(key: LineKey) -> bool:
    """Whether a line holds a certificate in place of a key."""
    return _CERTIFICATE.fullmatch(key.type) is not None


def _of_a_newer_type(name: str, encoded: str, comment: str) -> LineKey:
    """A key of a type that this sshd accepts and Keyrack does not know: its content is not checked."""
    blob = _decoded(encoded)
    if blob is None or not blob.startswith(string(name.encode("latin-1"))):
        return LineKey(name, "", comment, None, "the key is damaged")
    return LineKey(name, _base64(blob), comment, of_blob(blob), None)


def _decoded(encoded: str) -> Optional[bytes]:
    """What b64_pton makes of it: white space is skipped, and only the canonical form is taken."""
    encoded = re.sub(r"[\n\r\v\f]", "", encoded)
    try:
        blob = binascii.a2b_base64(encoded.encode("ascii"))
    except ValueError:
        return None
    return blob if blob and _base64(blob) == encoded else None


def _canonical(key_type: str, blob: bytes, rules: SshdRules) -> Tuple[bytes, int, Optional[str]]:
    """The key as sshd would write it, its bits, and why sshd does not load it. Raises WireError when it is damaged."""
    reader = Reader(blob)
    inside = _text(reader)
    bits = 0
    parts = [string(key_type.encode("ascii"))]
    curve = "nistp256" if key_type == _SK_ECDSA else _ECDSA.get(key_type)
    if curve is not None:
        if (NAMES.get(inside) if inside in (*_ECDSA, _SK_ECDSA, _WEBAUTHN) else None) != key_type:
            return blob, 0, "the key inside is of another type"
        named, point = _text(reader), reader.string()
        if named != curve:
            return blob, 0, "the key is for another curve"
        problem = nist_problem(curve, point)
        if problem:
            return blob, 0, problem
        parts += [string(curve.encode("ascii")), string(point)]
    elif NAMES.get(inside, _SHORT.get(inside.lower()) if rules.version < _NO_SHORT else None) != key_type:
        return blob, 0, "the key inside is of another type"
    elif key_type in (_RSA, _DSA):
        numbers = [_number(reader) for _ in range(2 if key_type == _RSA else 4)]
        bits = numbers[1].bit_length() if key_type == _RSA else 0
        parts += [mpint(number) for number in numbers]
    else:
        point = reader.string()
        if len(point) != 32:
            return blob, 0, "an Ed25519 key has exactly 32 bytes"
        parts.append(string(point))
    if key_type in (_SK_ED25519, _SK_ECDSA):
        parts.append(string(_bytes(reader)))
    reader.end()
    return b"".join(parts), bits, None


def _refused(key_type: str, bits: int, rules: SshdRules) -> Optional[str]:
    if key_type == _RSA and bits < max(rules.smallest_rsa, SMALLEST_RSA):
        return f"an RSA key of {bits} bits is too short"
    if not rules.accepted:
        return "DSA keys are not accepted" if key_type == _DSA else None
    if not any(_is_listed(name, rules.accepted) for name in _ALGORITHMS.get(key_type, (key_type,))):
        return f"{'DSA keys' if key_type == _DSA else 'keys of this type'} are not accepted"
    return None


def _is_listed(name: str, patterns: str) -> bool:
    """Whether a list of patterns names it (match_pattern_list: a pattern with ! that fits decides)."""
    listed = False
    for pattern in patterns.split(","):
        negated = pattern.startswith("!")
        wild = re.escape(pattern[1:] if negated else pattern).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(wild, name):
            if negated:
                return False
            listed = True
    return listed


def _bytes(reader: Reader) -> bytes:
    """A string that may end with one NUL, which C does not see (sshbuf_get_cstring)."""
    raw = reader.string()
    if b"\0" in raw[:-1]:
        raise WireError("a name in it is cut short")
    return raw[:-1] if raw.endswith(b"\0") else raw


def _text(reader: Reader) -> str:
    return _bytes(reader).decode("latin-1")


def _number(reader: Reader) -> int:
    """Zeros in front are skipped; a negative number, or one that is too long, is none (sshbuf_get_bignum2)."""
    raw = reader.string()
    if raw[:1] >= b"\x80" or len(raw) > _LARGEST_NUMBER + (raw[:1] == b"\0"):
        raise WireError("a number in it is not one")
    return int.from_bytes(raw, "big")


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
