"""`keyrack keys add`, `replace`, `revoke`: one key on many servers, as an operator types it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from keyrack.ssh.public_key import fingerprint_of
from tests.cli.test_operator import run
from tests.core.keys_for_tests import fresh_line


@pytest.fixture
def folder(team_folder: Path, tmp_path: Path) -> Path:
    """A data folder with the team in it."""
    subprocess.run(["cp", "-r", str(team_folder), str(tmp_path / "data")], check=True)
    return tmp_path / "data"


def test_a_key_comes_is_replaced_and_goes(folder: Path, tmp_path: Path) -> None:
    old, new = fresh_line(), fresh_line()
    (tmp_path / "old.pub").write_text(old + "\n", "ascii")
    (tmp_path / "new.pub").write_text(new + "\n", "ascii")
    words = ("keys", "add", str(tmp_path / "old.pub"), "--label", "bot", "--as", "deploy")
    assert "Say which servers" in run(folder, *words, status=2)
    (added,) = json.loads(run(folder, *words, "--tag", "web", "--json"))
    assert (added["server"], added["state"]) == ("web-1", "added")
    assert "present" in run(folder, *words, "--server", "web-1")
    assert "no-such" in run(folder, *words, "--server", "no-such", status=1)
    done = run(folder, "keys", "replace", fingerprint_of(old), str(tmp_path / "new.pub"), "--all")
    assert "replaced" in done
    assert fingerprint_of(new) in run(folder, "hosts", "keys", "web-1")
    assert "revoked" in run(folder, "keys", "revoke", "--label", "bot", "--all")
