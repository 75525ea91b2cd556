"""The file that hosts download: always the same bytes, nothing needless inside, runs on the oldest Python named."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from keyrack import __version__
from keyrack.web.agent_archive import build_zipapp

OLDEST = "python3.9"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent as a file."""
    path = tmp_path_factory.mktemp("archive") / "keyrack-agent.pyz"
    path.write_bytes(build_zipapp())
    return path


def interpreters() -> list[str]:
    """This Python, and the oldest one for agents where it is installed."""
    oldest = shutil.which(OLDEST)
    works = oldest and subprocess.run([oldest, "-V"], capture_output=True, check=False).returncode == 0
    return [sys.executable, *([oldest] if oldest and works else [])]


def test_the_same_sources_are_the_same_bytes() -> None:
    assert build_zipapp() == build_zipapp()


def test_the_archive_has_only_what_the_agent_needs(archive: Path) -> None:
    data = archive.read_bytes()
    assert data.startswith(b"#!/usr/bin/env python3\n")
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert {"__main__.py", "keyrack/__init__.py", "keyrack/agent/cli.py", "keyrack/ssh/public_key.py"} <= set(names)
    assert all(name.endswith(".py") for name in names)
    others = [name for name in names if not name.startswith(("keyrack/agent/", "keyrack/protocol/", "keyrack/ssh/"))]
    assert sorted(others) == ["__main__.py", "keyrack/__init__.py"]


@pytest.mark.parametrize("python", interpreters())
def test_the_archive_runs_by_itself(archive: Path, python: str, tmp_path: Path) -> None:
    # -I and -S: without this environment's packages, and without any other's.
    version = subprocess.run(
        [python, "-I", "-S", str(archive), "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert version.stdout == f"keyrack-agent {__version__}\n"
    status = subprocess.run(
        [python, "-I", "-S", "-W", "error", str(archive), "status", "--state-dir", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert status.returncode == 1
    assert "enroll" in status.stderr
    assert "Traceback" not in status.stderr
