"""What the program ssh says of the keys that sshd would take, as its versions say it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from keyrack.agent.sshd import probe
from keyrack.agent.system import programs

FINGERPRINT = "SHA256:lXb4U18QLhJ9UW3PEW1/QahmKMUU3Jfnje5HyRFJ4Co"
OFFERED = "debug1: Authentications that can continue: publickey"
SAID = {
    "7.6": f"debug1: Server accepts key: pkalg ssh-ed25519 blen 51\ndebug2: input_userauth_pk_ok: fp {FINGERPRINT}",
    "9.2": f"debug1: Server accepts key: /proc/1/fd/5 ED25519 {FINGERPRINT} explicit",
}


@pytest.mark.parametrize("version", SAID)
def test_a_key_that_sshd_takes_is_read_of_each_ssh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{OFFERED}\n{SAID[version]}\nEND\nexit 255\n", "ascii")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "find", lambda name: str(program))
    assert probe.ask(("127.0.0.1", 22), "deploy", []) == probe.ProbeResult(True, frozenset({FINGERPRINT}))


def test_sshd_is_asked_where_the_kernel_has_no_files_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of RHEL 7 has none."""

    def fail(name: str) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name)

    program = tmp_path / "ssh"
    found = tmp_path / "found"
    takes = 'while [ "$1" != -i ]; do shift; done'
    program.write_text(f"#!/bin/sh\n{takes}\ncat \"$2\" >{found}\necho '{OFFERED}' >&2\n", "ascii")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "find", lambda name: str(program))
    monkeypatch.setattr(os, "memfd_create", fail)
    before = set(os.listdir("/dev/shm"))
    assert probe.ask(("127.0.0.1", 22), "deploy", ["ssh-ed25519 AAAA"]).reached
    assert found.read_text("ascii") == "ssh-ed25519 AAAA\n"
    assert not [name for name in set(os.listdir("/dev/shm")) - before if name.startswith("keyrack-")]
