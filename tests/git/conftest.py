"""A team with a Git host, new for each test; must share nothing between two tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.git.people import Site, start_host
from tests.login.private_sshd import strict_folder
from tests.services import Service


@pytest.fixture
def site(team: Service, tmp_path: Path) -> Iterator[Site]:
    """A service with two workspaces, and Git over SSH beside it."""
    people = tmp_path / "people"
    people.mkdir()
    with strict_folder() as folder:
        host = start_host(team, folder)
        try:
            yield Site(team, host, people)
        finally:
            host.stop()
