"""SSH signatures (SSHSIG), against ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from keyrack.ssh.sshsig import armour, message, public_line
from keyrack.ssh.wire import string

NAMESPACE = "keyrack-host-document"


def verifies(folder: Path, allowed: str, signature: str, data: bytes, namespace: str = NAMESPACE) -> bool:
    (folder / "allowed").write_text(allowed)
    (folder / "sig").write_text(signature)
    command: list[str | Path] = ["ssh-keygen", "-Y", "verify", "-f", folder / "allowed", "-s", folder / "sig"]
    command += ["-I", "keyrack", "-n", namespace]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@pytest.fixture
def private() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def blob_of(private: Ed25519PrivateKey) -> bytes:
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return string(b"ssh-ed25519") + string(raw)


@pytest.mark.parametrize("hash_name", ["sha512", "sha256"])
@pytest.mark.parametrize("data", [b"", b"{}", b"\0\xff" * 100_000])
def test_ssh_keygen_verifies_a_signature(
    hash_name: str, data: bytes, private: Ed25519PrivateKey, tmp_path: Path
) -> None:
    signature = armour(blob_of(private), NAMESPACE, private.sign(message(NAMESPACE, data, hash_name)), hash_name)
    allowed = f'keyrack namespaces="{NAMESPACE}" {public_line(blob_of(private))}\n'
    assert verifies(tmp_path, allowed, signature, data)
    assert not verifies(tmp_path, allowed, signature, data + b"x")
    assert not verifies(tmp_path, allowed, signature, data, "git")
    stranger = public_line(blob_of(Ed25519PrivateKey.generate()))
    assert not verifies(tmp_path, f"keyrack {stranger}\n", signature, data)


def test_the_armoured_signature_is_the_one_ssh_keygen_makes(tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=60)
    signer: list[str | Path] = ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", NAMESPACE]
    made = subprocess.run(signer, input=b"data", capture_output=True, check=True, timeout=60).stdout.decode()
    private = load_ssh_private_key(key.read_bytes(), None)
    assert isinstance(private, Ed25519PrivateKey)
    # Ed25519 signatures are deterministic, so the texts are the same to the last byte.
    assert armour(blob_of(private), NAMESPACE, private.sign(message(NAMESPACE, b"data"))) == made
    assert public_line(blob_of(private)) == " ".join((tmp_path / "key.pub").read_text().split()[:2])


@pytest.mark.parametrize("namespace", ["", "a b", "a\n", "é", "x" * 300])
def test_a_namespace_is_one_plain_word(namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        message(namespace, b"")


def test_refuses_what_is_not_ed25519(private: Ed25519PrivateKey) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        armour(blob_of(private), NAMESPACE, bytes(63))
    with pytest.raises(ValueError, match="Ed25519"):
        armour(string(b"ssh-rsa") + bytes(40), NAMESPACE, bytes(64))
    with pytest.raises(ValueError, match="sha256 or sha512"):
        message(NAMESPACE, b"", "md5")
