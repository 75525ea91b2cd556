"""Builds and reads SSH signatures as `ssh-keygen -Y sign` makes them (OpenSSH's PROTOCOL.sshsig); must hold no
private key and verify no signature: core/keys/possession.py does that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import NamedTuple

from keyrack.ssh.wire import Reader, WireError, string

_MAGIC = b"SSHSIG"
_VERSION = b"\0\0\0\1"
_HASHES = ("sha256", "sha512")
_ED25519 = b"ssh-ed25519"
_NAMESPACE = re.compile(r"[!-~]{1,255}")
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
LONGEST = 16_384
"""In characters; the signature of the largest RSA key that OpenSSH takes is half as long."""


class SignatureProblem(ValueError):
    """What is no SSH signature; the words say how, and never repeat it."""


class Signature(NamedTuple):
    """A signature as it was read. algorithm and value: of the key's own signature; rest: what follows that (U2F)."""

    public_blob: bytes
    namespace: str
    hash: str
    algorithm: str
    value: bytes
    rest: bytes


def read(text: str) -> Signature:
    """The text of a signature file, taken apart; nothing of it is proven yet. Raises SignatureProblem."""
    lines = text[: LONGEST + 1].strip().splitlines()
    if len(text) > LONGEST or len(lines) < 3 or lines[0].strip() != _BEGIN or lines[-1].strip() != _END:
        raise SignatureProblem(f"a signature is the whole text from {_BEGIN} to {_END}")
    try:
        blob = base64.b64decode("".join(line.strip() for line in lines[1:-1]).encode("ascii"), validate=True)
        if blob[: len(_MAGIC) + len(_VERSION)] != _MAGIC + _VERSION:
            raise SignatureProblem("it is no SSH signature of version 1")
        reader = Reader(blob[len(_MAGIC) + len(_VERSION) :])
        public_blob, namespace = reader.string("key"), reader.string("namespace")
        reader.string("reserved field")
        digest, signed = reader.string("hash"), reader.string("signature")
        reader.end()
        inner = Reader(signed)
        algorithm, value = inner.string("algorithm"), inner.string("value")
        names = [part.decode("ascii") for part in (namespace, digest, algorithm)]
    except (WireError, binascii.Error, UnicodeError) as problem:
        raise SignatureProblem(f"the signature is damaged: {problem}") from None
    if names[1] not in _HASHES:
        raise SignatureProblem("the hash of an SSH signature is sha256 or sha512")
    return Signature(public_blob, names[0], names[1], names[2], value, inner.rest)


def message(namespace: str, data: bytes, hash: str = "sha512") -> bytes:
    """The bytes to sign for `data`: they name the namespace, so that a signature proves nothing in another one."""
    if hash not in _HASHES:
        raise ValueError("the hash of an SSH signature is sha256 or sha512")
    digest = hashlib.new(hash, data).digest()
    return _MAGIC + string(_checked(namespace)) + string(b"") + string(hash.encode("ascii")) + string(digest)


def armour(public_blob: bytes, namespace: str, signature: bytes, hash: str = "sha512") -> str:
    """The text of a signature file.

    `public_blob`: the signer's key as in wire form; `signature`: the 64 bytes that Ed25519 made of
    `message(...)`.
    """
    if not public_blob.startswith(string(_ED25519)) or len(public_blob) != len(_ED25519) + 4 + 36:
        raise ValueError("the signer's key is not an Ed25519 key in wire form")
    if len(signature) != 64:
        raise ValueError("an Ed25519 signature has 64 bytes")
    if hash not in _HASHES:
        raise ValueError("the hash of an SSH signature is sha256 or sha512")
    body = (
        _MAGIC
        + _VERSION
        + string(public_blob)
        + string(_checked(namespace))
        + string(b"")
        + string(hash.encode("ascii"))
        + string(string(_ED25519) + string(signature))
    )
    text = base64.b64encode(body).decode("ascii")
    lines = [text[at : at + 70] for at in range(0, len(text), 70)]  # the width that ssh-keygen uses
    return "\n".join(("-----BEGIN SSH SIGNATURE-----", *lines, "-----END SSH SIGNATURE-----", ""))


def public_line(public_blob: bytes) -> str:
    """The signer's key as in a .pub file or an allowed_signers file, without a comment."""
    return f"{_ED25519.decode('ascii')} {base64.b64encode(public_blob).decode('ascii')}"


def _checked(namespace: str) -> bytes:
    if not _NAMESPACE.fullmatch(namespace):
        raise ValueError("a namespace is visible ASCII without blanks, and not empty")
    return namespace.encode("ascii")
