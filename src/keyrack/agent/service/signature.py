"""Checks the service's signature of a document by the one key noted at enrolment; must run no other program.

`ssh-keygen -Y verify` came only with OpenSSH 8.1, and older versions are in use: this check is the same on every host.
"""

from __future__ import annotations

import base64

from keyrack.agent.system.folder import PRIVATE_FILE, Folder
from keyrack.protocol import document_words
from keyrack.ssh import ed25519, sshsig, wire

ALLOWED_SIGNERS = "allowed_signers"
_LONGEST_SIGNATURE = 8192
_ALGORITHM = "ssh-ed25519"
_PREFIX = wire.string(_ALGORITHM.encode("ascii")) + b"\0\0\0\x20"


class DocumentSignatureProblem(Exception):
    """A document that the service did not sign; the words say why."""


def allow(state: Folder, signing_key: str) -> None:
    """Write the one key whose documents this host obeys in ssh-keygen's format (ALLOWED SIGNERS, ssh-keygen(1)): for
    people who check by hand, and for an older agent that may replace this one.
    """
    line = f'{document_words.PRINCIPAL} namespaces="{document_words.NAMESPACE}" {signing_key}\n'
    state.write(ALLOWED_SIGNERS, line.encode("ascii"), PRIVATE_FILE)


def check(signing_key: str, document: str, signature: str, namespace: str = document_words.NAMESPACE) -> None:
    """Raise DocumentSignatureProblem unless this key (type and base64) signed exactly this text, in this namespace."""
    if len(signature) > _LONGEST_SIGNATURE or not signature.isascii():
        raise DocumentSignatureProblem("the signature of the document is no SSH signature")
    try:
        signed = sshsig.read(signature)
    except sshsig.SignatureProblem as problem:
        raise DocumentSignatureProblem(f"the signature of the document is no SSH signature: {problem}") from None
    public = _public(signing_key)
    if signed.public_blob != _PREFIX + public:
        raise DocumentSignatureProblem("the signature of the document is not the service's: it is of another key")
    if signed.namespace != namespace:
        raise DocumentSignatureProblem("the signature of the document is not the service's: it is for something else")
    text = document.encode("utf-8", "surrogatepass")
    message = sshsig.message(signed.namespace, text, signed.hash)
    is_plain = signed.algorithm == _ALGORITHM and not signed.rest
    if not is_plain or not ed25519.verify(public, message, signed.value):
        raise DocumentSignatureProblem("the signature of the document is not the service's: it is not of this text")


def can_check(signing_key: str) -> bool:
    """Whether signatures of this key (type and base64) can be checked here."""
    try:
        _public(signing_key)
    except DocumentSignatureProblem:
        return False
    return True


def _public(signing_key: str) -> bytes:
    """The 32 bytes of an Ed25519 key."""
    kind, _, encoded = signing_key.partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
    except ValueError:
        blob = b""
    if kind != _ALGORITHM or not blob.startswith(_PREFIX) or len(blob) != len(_PREFIX) + 32:
        raise DocumentSignatureProblem("the service's key that was noted at enrolment is no Ed25519 key")
    return blob[len(_PREFIX) :]
