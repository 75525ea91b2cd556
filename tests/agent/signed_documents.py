"""Makes and signs host documents by hand, right ones and wrong ones; must not use the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyrack.agent.state import Accepted
from keyrack.protocol import document_words, host_document
from keyrack.protocol.host_document import AuthorizedKey, HostDocument
from keyrack.ssh import sshsig, wire

HOST = "h_0123456789abcdef"
ISSUED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Signer:
    """A key that signs documents as a service does."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.generate()
        self._blob = wire.string(b"ssh-ed25519") + wire.string(self._key.public_key().public_bytes_raw())
        self.public = sshsig.public_line(self._blob)

    def sign(self, text: str, namespace: str = document_words.NAMESPACE) -> str:
        """The armoured signature over a text."""
        return sshsig.armour(self._blob, namespace, self._key.sign(sshsig.message(namespace, text.encode())))

    def signed(self, text: str, namespace: str = document_words.NAMESPACE) -> Accepted:
        """A text with its signature, as the agent gets it."""
        return Accepted(text, self.sign(text, namespace))


def document(
    revision: int, users: Mapping[str, Sequence[AuthorizedKey]], revoked: Sequence[str] = (), host: str = HOST
) -> str:
    """The text of a document."""
    return host_document.encode(HostDocument(host, revision, ISSUED, users, revoked))


def public_key() -> str:
    """A new Ed25519 key line; nobody keeps the private half."""
    raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    return sshsig.public_line(wire.string(b"ssh-ed25519") + wire.string(raw))
