"""Fingerprints, made and recognized, against ssh-keygen."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keyrack.ssh import fingerprint
from keyrack.ssh.public_key import parse


def test_prints_the_same_as_ssh_keygen(tmp_path: Path) -> None:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, timeout=30)
    asked = subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True, text=True, timeout=30)
    key = parse(path.with_suffix(".pub").read_text())
    assert fingerprint.of_blob(key.blob) == fingerprint.of_public_key(key.canonical) == asked.stdout.split()[1]
    assert fingerprint.is_fingerprint(asked.stdout.split()[1])


@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONaec+Id",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONaec+Id comment",
        "ssh-ed25519 not base64",
        "ssh-ed25519 AAAA",
        "ключ AAAAC3NzaC1lZDI1NTE5",
        "ssh-ed25519 ключ",
    ],
)
def test_a_line_that_is_no_public_key_has_no_fingerprint(line: str) -> None:
    assert fingerprint.of_public_key(line) is None


@pytest.mark.parametrize(
    "value", [None, 7, b"SHA256:" + b"A" * 43, "SHA256:" + "A" * 42, "SHA256:" + "A" * 44, "SHA256:" + "A" * 43 + "\n"]
)
def test_text_that_only_looks_like_a_fingerprint_is_none(value: object) -> None:
    assert not fingerprint.is_fingerprint(value)
