"""Ed25519 signatures as RFC 8032, Wycheproof and ssh-keygen judge them.

tests/data/ed25519_wycheproof.jsonl holds Project Wycheproof's vectors for Ed25519 (C2SP, Apache License 2.0).
"""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyrack.ssh import ed25519, sshsig, wire
from keyrack.ssh.curves import ed25519_problem

DATA = Path(__file__).parent.parent / "data" / "ed25519_wycheproof.jsonl"
ORDER = 2**252 + 27742317777372353535851937790883648493
MANY = 3000 if os.environ.get("KEYRACK_LONG") else 60

# Section 7.1: private key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
]


@pytest.mark.parametrize(("private", "message", "signature"), RFC_8032)
def test_signatures_of_the_rfc_are_verified(private: str, message: str, signature: str) -> None:
    public = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(private)).public_key().public_bytes_raw()
    signed = bytes.fromhex(signature)
    assert ed25519.verify(public, bytes.fromhex(message), signed)
    for at in (0, 31, 32, 63):
        other = bytearray(signed)
        other[at] ^= 1
        assert not ed25519.verify(public, bytes.fromhex(message), bytes(other))


def test_signatures_of_wycheproof_are_judged_as_published() -> None:
    """What is acceptable there is so for keys of low or mixed order, which are no keys here (ed25519_problem)."""
    vectors = [json.loads(line) for line in DATA.read_text("ascii").splitlines()]
    assert len(vectors) == 210
    wrong = []
    for vector in vectors:
        key, message, signature = (bytes.fromhex(vector[name]) for name in ("key", "message", "signature"))
        holds = ed25519.verify(key, message, signature)
        if vector["result"] == "acceptable":
            holds = ed25519_problem(key) is None
        if holds is not (vector["result"] == "valid"):
            wrong.append(vector["id"])
    assert wrong == []


def test_a_key_has_one_form() -> None:
    """A point that is out of range, off the curve, or zero with a sign is none: section 5.1.3."""
    for number in (2**255 - 19, 2**255 - 1, 2, 1 | 1 << 255, 2**255 - 20 | 1 << 255):
        assert not ed25519.verify(number.to_bytes(32, "little"), b"", bytes(64))
    for size in (0, 31, 33):
        assert not ed25519.verify(bytes(size), b"", bytes(64))


@pytest.mark.timeout(1800)
def test_ssh_keygen_agrees(tmp_path: Path) -> None:
    """On signatures that hold, and on the same with a bit, a part or the text changed."""
    rolls = random.Random(8032)
    agreed = 0
    for number in range(MANY):
        key = Ed25519PrivateKey.from_private_bytes(rolls.randbytes(32))
        public = key.public_key().public_bytes_raw()
        blob = wire.string(b"ssh-ed25519") + wire.string(public)
        text = rolls.randbytes(rolls.randrange(200))
        value = bytearray(key.sign(sshsig.message("test", text)))
        change = number % 4
        if change == 1:
            value[rolls.randrange(64)] ^= 1 << rolls.randrange(8)
        elif change == 2:
            text += b"x"
        elif change == 3:
            value[:32] = rolls.randbytes(32)
        holds = ed25519.verify(public, sshsig.message("test", text), bytes(value))
        assert holds is judge(tmp_path, blob, bytes(value), text), (number, value.hex())
        agreed += holds
    assert agreed == MANY // 4


def test_a_signature_with_another_form_of_s_is_refused(tmp_path: Path) -> None:
    """S and S + L mean the same; RFC 8032 wants S below L, which OpenSSH 9.2 does not ask."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    public = key.public_key().public_bytes_raw()
    value = key.sign(sshsig.message("test", b"text"))
    more = value[:32] + (int.from_bytes(value[32:], "little") + ORDER).to_bytes(32, "little")
    blob = wire.string(b"ssh-ed25519") + wire.string(public)
    assert judge(tmp_path, blob, value, b"text")
    assert ed25519.verify(public, sshsig.message("test", b"text"), value)
    assert not ed25519.verify(public, sshsig.message("test", b"text"), more)


def judge(folder: Path, blob: bytes, value: bytes, text: bytes) -> bool:
    """Whether ssh-keygen says that a signature holds."""
    (folder / "signature").write_text(sshsig.armour(blob, "test", value), "ascii")
    (folder / "allowed").write_text(f"me ssh-ed25519 {base64.b64encode(blob).decode('ascii')}\n", "ascii")
    given = ["ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "me", "-n", "test", "-s", "signature"]
    ended = subprocess.run(given, cwd=folder, input=text, capture_output=True, check=False, timeout=60)
    return ended.returncode == 0
