"""Fixtures for tests of what OpenSSH defines: the real sshd, and a key pair of ssh-keygen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ssh.cases import make_key
from tests.ssh.sshd import Sshd


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Sshd:
    return Sshd(tmp_path_factory.mktemp("sshd"))


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A key pair: the path of its private half, and its public half in canonical form."""
    path, line = make_key(tmp_path_factory.mktemp("pair"), "pair", "-t", "ed25519")
    return path, line.rsplit(" ", 1)[0]
