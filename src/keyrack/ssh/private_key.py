"""Recognises a private key in whatever format somebody pastes one; must return nothing of it.

It answers with yes or no only, so that no part of a secret can end up in an error, a log or a database.
"""

from __future__ import annotations

import base64
import binascii
import re

# The armour of PEM (RFC 7468), OpenSSH, SSH.com and PGP: with dashes in any case, or in capitals without
# them. The blank may have been turned into something else by a form (+) or an address (%20).
_BLANK = r"(?:[ \t+_]|%20|&nbsp;)"
_ARMOUR = re.compile(rf"-{_BLANK}*(?:begin|end)(?:{_BLANK}|[a-z0-9]){{0,60}}private{_BLANK}*key", re.IGNORECASE)
_BARE_ARMOUR = re.compile(rf"\b(?:BEGIN|END){_BLANK}(?:{_BLANK}|[A-Z0-9]){{0,60}}PRIVATE{_BLANK}*KEY\b")

# Other formats say in clear what they are: PuTTY, SSH 1, age, PEM's own header for an encrypted body.
_PLAIN = re.compile(
    r"PuTTY-User-Key-File-\d|Private-(?:Lines|MAC|Hash)\s*:|SSH PRIVATE KEY FILE FORMAT|AGE-SECRET-KEY-1"
    r"|Proc-Type\s*:\s*4\s*,\s*ENCRYPTED|openssh-key-v1|6f70656e7373682d6b65792d7631",
    re.IGNORECASE,
)
# A JSON Web Key has its secrets under these names; the quotes may be escaped.
_JWK = re.compile(r"""["']kty\\*["']\s*:""")
_JWK_PRIVATE = re.compile(r"""["'][dpqk]\\*["']\s*:\s*\\*["']""")

# "openssh-key-v1" in base64: how the body of every OpenSSH private key begins.
_OPENSSH_BODY = "b3BlbnNzaC1rZXktdjE"
_BASE64_RUN = re.compile(r"[A-Za-z0-9+/_-]{24,}")
_SPACING = re.compile(r"(?:\\r|\\n|\\t|%0[adAD]|[\s\"'>|,])+")

# How much of a base64 run is decoded: enough for the header of any format, and PEM armour inside base64.
_HEAD_CHARACTERS = 256

# Private formats in DER, after the outer SEQUENCE: an INTEGER version of 0 or 1 (PKCS#1, PKCS#8, SEC 1) ...
_DER_VERSIONS = (b"\x02\x01\x00", b"\x02\x01\x01")
# ... or encryption by password: PKCS#5 and PKCS#12 object identifiers.
_DER_ENCRYPTIONS = (b"\x2a\x86\x48\x86\xf7\x0d\x01\x05", b"\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x01")


def looks_private(text: str) -> bool:
    """Whether a private key, or a recognisable part of one, is in `text` (any length the caller has accepted)."""
    if _says_private(text):
        return True
    # Without line breaks, real or escaped, quotes and mail prefixes, a wrapped body is one run again.
    joined = _SPACING.sub("", text)
    if _OPENSSH_BODY in joined:
        return True
    return any(_is_private_head(run.group()[:_HEAD_CHARACTERS]) for run in _BASE64_RUN.finditer(joined)) or any(
        _is_private_head(run.group()[:_HEAD_CHARACTERS]) for run in _BASE64_RUN.finditer(text)
    )


def _says_private(text: str) -> bool:
    if _PLAIN.search(text) or _ARMOUR.search(text) or _BARE_ARMOUR.search(text):
        return True
    return bool(_JWK.search(text) and _JWK_PRIVATE.search(text))


def _is_private_head(run: str) -> bool:
    """Whether the base64 `run` begins like a private key: DER, OpenSSH's own format, or text that says so."""
    run = run.replace("-", "+").replace("_", "/")
    try:
        head = base64.b64decode(run[: len(run) & ~3])
    except binascii.Error:  # pragma: no cover - the alphabet and the length are right by construction
        return False
    if _says_private(head.decode("latin-1")):
        return True
    body = _der_sequence(head)
    return body.startswith(_DER_VERSIONS) or any(oid in body[:32] for oid in _DER_ENCRYPTIONS)


def _der_sequence(head: bytes) -> bytes:
    """What follows the header of a DER SEQUENCE; empty when there is none."""
    if len(head) < 4 or head[0] != 0x30:
        return b""
    if head[1] < 0x80:
        return head[2:]
    count = head[1] & 0x7F
    return head[2 + count :] if 1 <= count <= 3 else b""
