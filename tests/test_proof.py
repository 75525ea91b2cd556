"""The harnesses that `make figures` runs are there, stand on the page, and the quickest of them finds nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_every_harness_of_make_figures_exists_and_is_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    spec = importlib.util.spec_from_file_location("proof", ROOT / "bench" / "proof.py")
    assert spec is not None
    assert spec.loader is not None
    proof = sys.modules["proof"] = importlib.util.module_from_spec(spec)  # its dataclasses look there
    try:
        spec.loader.exec_module(proof)
    finally:
        del sys.modules["proof"]
    shown = proof.kept((ROOT / "docs" / "figures.md").read_text("utf-8"))
    shown.pop(proof.RUN)  # it says what is missing in the run of everything, by itself
    assert set(shown) == {part.title for part in proof.PARTS}
    assert not [title for title, said in shown.items() if said == "Not run yet." or "A fault was found" in said]
    for part in proof.PARTS:
        for command in (part.long, part.short):
            (file,) = [word for word in command if word.endswith(".py")]
            assert (ROOT / file).exists()


def test_changed_keys_are_taken_as_ssh_keygen_takes_them() -> None:
    command = [sys.executable, "bench/mutations.py", "300"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| we take it and ssh-keygen does not, or another key | 0 |" in done.stdout
