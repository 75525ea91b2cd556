"""A short command spends nothing on looking for garbage: all that it loads stays until it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.services import TEAM

COUNTING = """
import gc, sys
def note(phase, told):
    if phase == "start":
        print("looked among", len(gc.get_objects()), file=sys.stderr)
gc.callbacks.append(note)
from keyrack.cli.main import main
main(sys.argv[1:], prog_name="keyrack")
"""
MANY = 50_000


def test_a_short_command_on_the_data_runs_no_garbage_collection(tmp_path: Path) -> None:
    (tmp_path / "team.toml").write_text(TEAM, "utf-8")
    data = ["--data", str(tmp_path / "data")]
    keyrack = [sys.executable, "-m", "keyrack.cli.main"]
    subprocess.run([*keyrack, "apply", str(tmp_path / "team.toml"), *data], check=True, capture_output=True)
    counted = [sys.executable, "-c", COUNTING, "hosts", "list", *data]
    done = subprocess.run(counted, check=True, capture_output=True, text=True)
    assert "web" in done.stdout
    looked = [int(line.split()[-1]) for line in done.stderr.splitlines() if line.startswith("looked among")]
    assert [count for count in looked if count > MANY] == []
