"""The file of revoked keys: which text is written, and that sshd refuses its keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyrack.ssh.authorized_keys import render as render_authorized
from keyrack.ssh.public_key import KeyProblem
from keyrack.ssh.revoked_keys import render
from tests.ssh.cases import make_key
from tests.ssh.sshd import Sshd

GOOD = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHIRbfEUwbS5A/6b6HLVEWWJmeUNEZ2mRfWWONaec+Id"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO5JFRpruCr+cC/AsBk1I+vNXm0Nfq5YTAw3az2GvpGJ"


def test_the_same_keys_make_the_same_file() -> None:
    assert render([GOOD, OTHER]) == render([OTHER, GOOD, OTHER])
    assert render([GOOD]).endswith(f"\n{GOOD}\n".encode())


@pytest.mark.parametrize("line", ["", "x", f"{GOOD} comment", f"{GOOD}\n", f" {GOOD}", f"restrict {GOOD}"])
def test_a_damaged_line_would_lock_everyone_out_and_is_refused(line: str) -> None:
    with pytest.raises(KeyProblem):
        render([GOOD, line])


def test_sshd_refuses_the_keys_in_it_and_no_others(sshd: Sshd, tmp_path: Path) -> None:
    path, public = make_key(tmp_path, "revoked", "-t", "ed25519")
    canonical = public.rsplit(" ", 1)[0]
    sshd.authorized.write_bytes(render_authorized([canonical]))
    try:
        for keys, answer in (([], "in\n"), ([GOOD, OTHER], "in\n"), ([GOOD, canonical], None)):
            sshd.revoked.write_bytes(render(keys))
            assert sshd.login(path) == answer
    finally:
        sshd.revoked.write_bytes(b"")
