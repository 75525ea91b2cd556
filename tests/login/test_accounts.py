"""The accounts of tests are what useradd and userdel make of them, also where no program is started for them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import own_machine
from tests.login.observed_host import ACCOUNT_FILES, accounts

NAME = "krnew"


def facts() -> dict[str, object]:
    """All that this machine has of the account."""
    home = Path("/home", NAME)
    places = [home, *sorted(home.rglob("*"))]
    found: dict[str, object] = {str(path): path.stat()[:1] + path.stat()[4:7] for path in places if path != home}
    found["home"] = home.stat()[:1] + home.stat()[4:6]
    for file in ACCOUNT_FILES:
        status = Path("/etc", file).stat()
        lines = Path("/etc", file).read_text("utf-8").splitlines()
        found[file] = ([line for line in lines if NAME in line], status.st_mode, status.st_uid, status.st_gid)
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="this test creates accounts")
def test_an_account_made_again_is_the_one_that_useradd_made(monkeypatch: pytest.MonkeyPatch) -> None:
    if not own_machine.taken:
        pytest.skip("accounts are this machine's own here, and made by its programs")
    before = {file: Path("/etc", file).read_bytes() for file in ACCOUNT_FILES}
    with accounts((NAME,)):
        first = facts()
    assert {file: Path("/etc", file).read_bytes() for file in ACCOUNT_FILES} == before
    with monkeypatch.context() as without:
        without.setattr(subprocess, "run", None)
        with accounts((NAME,)):
            assert facts() == first
    assert {file: Path("/etc", file).read_bytes() for file in ACCOUNT_FILES} == before
    # What somebody changed is taken away by the program, which knows all that belongs to it.
    with accounts((NAME,)):
        subprocess.run(["usermod", "-aG", "mail", NAME], check=True, capture_output=True)
    assert not any(NAME in Path("/etc", file).read_text("utf-8") for file in ACCOUNT_FILES)
    assert not Path("/home", NAME).exists()
