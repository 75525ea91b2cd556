"""The instance's one secret and the keys derived from it; must never let any of these out."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keyrack.logs import logger
from keyrack.protocol import document_words
from keyrack.ssh import fingerprint, sshsig, wire
from keyrack.store.engine.disk import sync

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SEED_BYTES = 32

log = logger("keyrack")


class InstanceKey:
    """Signs host documents, seals rows, encrypts secrets and hashes tokens.

    Each has a key of its own, derived from one 32-byte seed. So one file is all that a backup needs beside the
    database, and all that somebody who steals the database lacks.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError("an instance key has 32 bytes")
        self._signing_key = Ed25519PrivateKey.from_private_bytes(_derive(seed, b"host documents"))
        self._seal_key = _derive(seed, b"row seals")
        self._row_mac = _mac(_derive(seed, b"sealed rows"))
        self._token_mac = _mac(_derive(seed, b"tokens"))
        self._secrets_key = _derive(seed, b"access key secrets")
        self._public_blob = wire.string(b"ssh-ed25519") + wire.string(self._signing_key.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return "InstanceKey(…)"

    @classmethod
    def load(cls, path: Path) -> InstanceKey:
        """Read the seed from a file of 64 hexadecimal digits; create the file (0600) where there is none.

        Raises ValueError where the file holds something else.
        """
        if not path.exists():
            _make_file(path, secrets.token_bytes(SEED_BYTES))
        _warn_if_open(path)
        try:
            return cls(bytes.fromhex(path.read_text("ascii").strip()))
        except ValueError as error:
            raise ValueError(f"{path} is not an instance key: it must hold 64 hexadecimal digits") from error

    @cached_property
    def _cipher(self) -> AESGCM:
        # Imported with the first secret, as most commands read none.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(self._secrets_key)

    @cached_property
    def nobodys_secret(self) -> bytes:
        """A ciphertext, with the context "", to decrypt where there is no access key; as long as for a real one."""
        return self.encrypt("*" * 40, "")

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public half, as `ssh-keygen -l` prints it: "SHA256:…"."""
        return fingerprint.of_blob(self._public_blob)

    @property
    def public_line(self) -> str:
        """The public half, with which hosts check documents: "ssh-ed25519 AAAA…"."""
        return sshsig.public_line(self._public_blob)

    def sign(self, text: str, namespace: str = document_words.NAMESPACE) -> str:
        """An armoured SSHSIG over a text, as `ssh-keygen -Y verify` checks it."""
        signature = self._signing_key.sign(sshsig.message(namespace, text.encode()))
        return sshsig.armour(self._public_blob, namespace, signature)

    def signed(self, text: str, signature: str, namespace: str = document_words.NAMESPACE) -> bool:
        """Whether this key made a signature over this text. Ed25519 always signs the same text alike."""
        return hmac.compare_digest(self.sign(text, namespace).encode(), signature.encode("utf-8", "replace"))

    def seal(self, *fields: object) -> bytes:
        """A 32-byte seal over the fields of a row, in the former way; see sealing.py."""
        text = "\x1f".join("\x00" if field is None else str(field) for field in fields)
        return hmac.digest(self._seal_key, text.encode(), hashlib.sha256)

    def seal_row(self, text: bytes) -> bytes:
        """A 32-byte seal over a row as store/sealing/seals.py writes it out; no other seal is made with this key."""
        return self._row_mac(text)

    def hash_token(self, secret: str) -> bytes:
        """What is stored of a bearer secret; keyed, so that the database alone does not allow guessing."""
        return self._token_mac(secret.encode("utf-8", "surrogatepass"))

    def encrypt(self, secret: str, context: str) -> bytes:
        """Encrypt a secret that must be read again; decrypting takes the same context, such as an access key's id."""
        nonce = secrets.token_bytes(12)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), context.encode())

    def decrypt(self, encrypted: bytes, context: str) -> str:
        """The decrypted secret. Raises cryptography's InvalidTag where it or its context was changed."""
        return self._cipher.decrypt(encrypted[:12], encrypted[12:], context.encode()).decode()


def _mac(key: bytes) -> Callable[[bytes], bytes]:
    """HMAC-SHA256 (RFC 2104) with a key of at most 64 bytes. The first block of each hash is computed once, as each
    call seals and checks rows.
    """
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def mac(text: bytes) -> bytes:
        first, second = inner.copy(), outer.copy()
        first.update(text)
        second.update(first.digest())
        return second.digest()

    return mac


def _warn_if_open(path: Path) -> None:
    """Log that others on this machine can read the file, by ssh's rule: only if it is ours, so that we could change
    that.

    It is no error, as a service that does not start delivers no revocations (decision 323).
    """
    status = path.stat()
    if status.st_uid == os.getuid() and status.st_mode & 0o077:
        log.warning(
            "the instance key is not kept from others on this machine, who could sign for every host and read every "
            "secret with it",
            file=str(path),
            mode=f"{status.st_mode & 0o777:04o}",
            mend=f"chmod 600 {shlex.quote(str(path))}",
        )


def _make_file(path: Path, seed: bytes) -> None:
    """Create the file unless another process does so first; nobody ever sees a part of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(seed.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    sync(path.parent)


def _derive(seed: bytes, purpose: bytes) -> bytes:
    """The key for a purpose: HKDF's expand step (RFC 5869), as the seed is uniformly random already."""
    return HKDFExpand(SHA256(), length=32, info=b"keyrack " + purpose).derive(seed)
