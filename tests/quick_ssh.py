"""Settings that let ssh begin a connection at a tenth of its cost, and keys made without a program; holds no assertion.

The key exchange that it prefers, safe from quantum computers, takes 80 ms of processor time, and tests begin thousands.
Every sshd that is tried knows this one, and what Keyrack does begins after it. OpenSSH has the arithmetic of Curve25519
and Ed25519 from its own plain C, that of NIST's curves from OpenSSL: another tenth of the cost.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

_EXCHANGE = "ecdh-sha2-nistp256"
_HOST_KEY = "ecdsa-sha2-nistp256"
_RSA = Path(__file__).parent / "data" / "rsa"  # by their bits; they open nothing but what a test makes
KEX = f"KexAlgorithms={_EXCHANGE}"
# For an sshd that others ask too, who choose for themselves: the agent, ssh-keyscan.
KEX_SETTING = f"KexAlgorithms {_EXCHANGE}\n"


def quick_host_key(known_hosts: Path) -> list[str]:
    """Options of ssh that ask for the host key that is quickest to check, where that one is known."""
    known = known_hosts.is_file() and _HOST_KEY in known_hosts.read_text("utf-8")
    return ["-o", f"HostKeyAlgorithms={_HOST_KEY}"] if known else []


def quick_pair(path: Path, comment: str) -> None:
    """A new Ed25519 pair in the two files that ssh-keygen writes, without a program that is started for it."""
    made = Ed25519PrivateKey.generate()
    private = made.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    _write_pair(path, private, made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), comment)


def stored_rsa_pair(path: Path, bits: int, comment: str) -> None:
    """The one RSA pair of 2048, 3072 or 4096 bits in these two files: to find another's primes takes up to seconds."""
    private = (_RSA / str(bits)).read_bytes()
    public = load_ssh_private_key(private, None).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    _write_pair(path, private, public, comment)


def _write_pair(path: Path, private: bytes, public: bytes, comment: str) -> None:
    path.touch(0o600)
    path.write_bytes(private)
    path.with_name(f"{path.name}.pub").write_bytes(public + f" {comment}\n".encode())
