"""Fixtures of the whole suite: databases, a running service, a team to try it with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack import app
from keyrack.core import workspace_file
from tests.services import STRANGERS, TEAM, Service, running, settings_for

pytest_plugins = ["tests.databases"]


@pytest.fixture(scope="session")
def team_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of an instance with a team and strangers in it, to be copied."""
    folder = tmp_path_factory.mktemp("team")
    instance = app.open_instance(settings_for(folder, ""))
    for text in (TEAM, STRANGERS):
        workspace_file.apply(instance, text, {})
    instance.database.close()
    return folder


@pytest.fixture
def team(team_folder: Path, tmp_path: Path) -> Iterator[Service]:
    """A service with two workspaces: a team with one server (id 1), and strangers with another (id 2)."""
    folder = tmp_path / "data"
    shutil.copytree(team_folder, folder)
    with running(settings_for(folder, "")) as service:
        yield service
