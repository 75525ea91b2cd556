"""Fixtures for the agent: folders it accepts, an enrolled host, and a service that says what a test wants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.enrolled_host import EnrolledHost
from tests.agent.small_service import SmallService, small_service
from tests.login.private_sshd import strict_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which the agent and sshd agree to work."""
    with strict_folder() as path:
        yield path


@pytest.fixture
def service() -> Iterator[SmallService]:
    """A small service that answers as the test sets."""
    with small_service() as running:
        yield running


@pytest.fixture
def host(folder: Path, service: SmallService) -> Iterator[EnrolledHost]:
    """A host that enrolled at the small service."""
    host = EnrolledHost.enrol(folder, service)
    yield host
    host.close()
