"""Fixtures for tests of the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def data(team_folder: Path, tmp_path: Path) -> Path:
    """A data folder with the team in it, which nobody serves."""
    return Path(shutil.copytree(team_folder, tmp_path / "data"))
