"""Random art against ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keyrack.ssh.public_key import parse
from keyrack.ssh.random_art import random_art


@pytest.mark.parametrize(("kind", "bits"), [("ed25519", "256"), ("ecdsa", "384"), ("rsa", "2048")])
def test_prints_the_same_as_ssh_keygen(tmp_path: Path, kind: str, bits: str) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-b", bits, "-N", "", "-f", path], check=True, timeout=30)
    asked = subprocess.run(["ssh-keygen", "-lvf", path], check=True, capture_output=True, text=True, timeout=30)
    key = parse(path.with_suffix(".pub").read_text())
    assert random_art(key.type, key.bits, key.fingerprint) == asked.stdout.partition("\n")[2].rstrip("\n")
