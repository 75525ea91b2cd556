"""`keyrack people sources` and `keyrack sync-keys`: an account is named, looked at and removed by an operator."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from keyrack.cli.main import main
from tests.ports import free_port


@pytest.fixture
def data(team_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The team's data folder, of a service that may ask on loopback."""
    monkeypatch.setenv("KEYRACK_KEY_SOURCE_NETWORKS", "127.0.0.0/8")
    shutil.copytree(team_folder, tmp_path / "data")
    return str(tmp_path / "data")


def keyrack(data: str, *words: str) -> tuple[int, str]:
    """Run a command of the workspace acme; its status and what it printed."""
    done = CliRunner().invoke(main, [*words, "--data", data, "--workspace", "acme"])
    return done.exit_code, done.output


def test_an_account_elsewhere_is_named_synchronised_and_removed(data: str) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    assert keyrack(data, "sync-keys")[0] == 0
    status, said = keyrack(data, "people", "sources", "set", "alice", "github", "octo", "--url", away)
    assert (status, said) == (0, f"Keys of alice come from octo at {away} too.\n")
    status, said = keyrack(data, "sync-keys")
    assert (status, "no answer" in said) == (3, True), said
    listed = json.loads(keyrack(data, "people", "sources", "list", "alice", "--json")[1])
    assert [(one["account"], one["state"]) for one in listed] == [("octo", "no answer")]
    assert keyrack(data, "people", "sources", "remove", "alice", "github")[0] == 0
    assert keyrack(data, "people", "sources", "remove", "alice", "github")[0] == 1
    assert keyrack(data, "people", "sources", "list", "nobody")[0] == 1
    assert keyrack(data, "people", "sources", "set", "alice", "sourceforge", "octo")[0] == 2
