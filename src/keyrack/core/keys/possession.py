"""Whether an SSH signature was made with a key, by arithmetic; must know nobody and store nothing.

Formats: RFC 8332 (RSA), RFC 5656 (ECDSA), RFC 8709 (Ed25519), and OpenSSH's PROTOCOL.u2f for keys on security keys.
"""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from keyrack.ssh import sshsig
from keyrack.ssh.sshsig import Signature, SignatureProblem
from keyrack.ssh.wire import Reader, WireError, string

_CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    "ecdsa-sha2-nistp256": (ec.SECP256R1(), hashes.SHA256()),
    "ecdsa-sha2-nistp384": (ec.SECP384R1(), hashes.SHA384()),
    "ecdsa-sha2-nistp521": (ec.SECP521R1(), hashes.SHA512()),
}
_RSA: dict[str, hashes.HashAlgorithm] = {"rsa-sha2-256": hashes.SHA256(), "rsa-sha2-512": hashes.SHA512()}
_TOUCHED = 1


def proves(text: str, public_blob: bytes, namespace: str, data: bytes) -> bool:
    """Whether the text of a signature file is this key's signature over data in this namespace.

    public_blob: the key as in wire form. A security key must have been touched. Raises SignatureProblem for a text
    that is no signature.
    """
    signature = sshsig.read(text)
    if signature.public_blob != public_blob or signature.namespace != namespace:
        return False
    try:
        _verify(signature, sshsig.message(namespace, data, signature.hash))
    except (InvalidSignature, WireError, ValueError):
        return False
    return True


def _verify(signature: Signature, message: bytes) -> None:
    """Raises InvalidSignature, WireError or ValueError unless it holds."""
    key = Reader(signature.public_blob)
    kind = key.string("type").decode("ascii")
    if kind.startswith("sk-"):
        _security_key(kind, key, signature, message)
        return
    if signature.rest:
        raise InvalidSignature
    if kind == "ssh-rsa":
        exponent, modulus = key.mpint("exponent"), key.mpint("modulus")
        if signature.algorithm not in _RSA:
            raise InvalidSignature  # ssh-rsa is SHA-1
        public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        value = signature.value.rjust((modulus.bit_length() + 7) // 8, b"\0")
        public.verify(value, message, padding.PKCS1v15(), _RSA[signature.algorithm])
    elif signature.algorithm != kind:
        raise InvalidSignature
    elif kind == "ssh-ed25519":
        Ed25519PublicKey.from_public_bytes(key.string("point")).verify(signature.value, message)
    else:
        _ecdsa(kind, key, signature.value, message)


def _ecdsa(kind: str, key: Reader, value: bytes, message: bytes) -> None:
    curve, digest = _CURVES[kind]
    key.string("curve")
    public = ec.EllipticCurvePublicKey.from_encoded_point(curve, key.string("point"))
    numbers = Reader(value)
    der = encode_dss_signature(numbers.mpint("r"), numbers.mpint("s"))
    numbers.end()
    public.verify(der, message, ec.ECDSA(digest))


def _security_key(kind: str, key: Reader, signature: Signature, message: bytes) -> None:
    """PROTOCOL.u2f: the device signs the hash of the application, its flags, its counter and the message's hash."""
    if signature.algorithm != kind or len(signature.rest) != 5 or not signature.rest[0] & _TOUCHED:
        raise InvalidSignature
    ecdsa = kind == "sk-ecdsa-sha2-nistp256@openssh.com"
    if ecdsa:
        curve = key.string("curve")
    point = key.string("point")
    application = key.string("application")
    signed = hashlib.sha256(application).digest() + signature.rest + hashlib.sha256(message).digest()
    if ecdsa:
        _ecdsa("ecdsa-sha2-nistp256", Reader(string(curve) + string(point)), signature.value, signed)
    elif kind == "sk-ssh-ed25519@openssh.com":
        Ed25519PublicKey.from_public_bytes(point).verify(signature.value, signed)
    else:
        raise InvalidSignature


__all__ = ["SignatureProblem", "proves"]
