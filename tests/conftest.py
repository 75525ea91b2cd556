"""Fixtures of the whole suite: databases, a running service, a team to try it with."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack import app
from keyrack.core import workspace_file
from tests import own_machine
from tests.services import STRANGERS, TEAM, Service, running, settings_for

pytest_plugins = ["tests.databases"]

# The longest first, so that no worker begins a long one when the others are done.
ORDER = ("login", "agent", "crash", "git", "cli", "store", "core", "web")


def pytest_configure(config: pytest.Config) -> None:
    """Give the process that runs tests a machine of its own; of several workers, each."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        own_machine.take()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in order, and have one worker run those that share what the machine has once."""
    items.sort(key=lambda item: _place(item.path))
    for item in items:
        module = item.getparent(pytest.Module)
        shared = module is not None and bool({"accounts", "machine"} & set(vars(module.obj)))
        if shared and not own_machine.taken:
            item.add_marker(pytest.mark.xdist_group("machine"))


def _place(path: Path) -> int:
    folder = path.relative_to(Path(__file__).parent).parts[0]
    return ORDER.index(folder) if folder in ORDER else len(ORDER)


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
