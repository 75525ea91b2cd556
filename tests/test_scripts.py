"""The README's two commands start with `sh` alone: no make, no git, no bash; what runs in CI is the same."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = ("run", "test", "check", "install")


def test_the_readme_and_ci_name_the_scripts() -> None:
    readme = (ROOT / "README.md").read_text("utf-8").split("## Two commands")[1]
    named = re.findall(r"^(\S+)  +#", readme.split("```")[1], re.MULTILINE)
    assert named == ["scripts/run", "scripts/test"]
    ci = (ROOT / ".ci" / "run").read_text("utf-8").rstrip().split("\n")
    assert ci[-1] == "exec sh scripts/test"
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for name in COMMANDS:
        assert os.access(ROOT / "scripts" / name, os.X_OK)
        assert re.search(rf"^{name}:.*\n\t@sh scripts/{name}\b", makefile, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_of_the_readme_need_nothing_but_sh(name: str, tmp_path: Path) -> None:
    """Where a program is missing it is said which, instead of `command not found` of a tool nobody named.

    The folder on PATH holds what Debian calls essential, and neither make, git nor python3: what is installed
    there is asked of apt-get, which here only tells what it was asked for.
    """
    programs = tmp_path / "bin"
    programs.mkdir()
    for program in ("sh", "cat", "sed", "rm", "mktemp", "dirname", "basename", "cksum", "id", "tail", "env"):
        (programs / program).symlink_to(f"/usr/bin/{program}")
    calls = tmp_path / "told"
    (programs / "apt-get").write_text(f'#!/bin/sh\necho "$*" >>{calls}\nexit 1\n')
    (programs / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    for program in ("apt-get", "sudo"):
        (programs / program).chmod(0o755)
    copy = tmp_path / "keyrack"
    (copy / "scripts").mkdir(parents=True)
    for file in (ROOT / "scripts").iterdir():
        if file.is_file():
            (copy / "scripts" / file.name).write_bytes(file.read_bytes())
            (copy / "scripts" / file.name).chmod(0o755)
    for file_name in ("pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        (copy / file_name).write_bytes((ROOT / file_name).read_bytes())
    ended = subprocess.run(
        [str(copy / "scripts" / name)],
        env={"PATH": str(programs), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode != 0
    assert "needs Python 3.11 or newer" in ended.stderr, ended.stderr
    assert "not found" not in ended.stderr.replace("python3: not found", "")
    assert calls.read_text("utf-8").startswith("update")
