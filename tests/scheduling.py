"""Which tests one worker runs, one after the other: those of a file that share what is dear; must change no outcome.

Of several workers each would else start a service, a browser or an sshd of its own for the few tests that it gets of
the file.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent


class Together(LoadGroupScheduling):  # type: ignore[misc]
    """Groups by mark, as `--dist loadgroup` does, and by file where the file says that its tests share something."""

    def _split_scope(self, nodeid: str) -> str:
        group = super()._split_scope(nodeid)
        file = nodeid.partition("::")[0]
        return file if group == nodeid and _shares(file) else group


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Together | None:
    """Take the place of loadgroup's own scheduler."""
    if config.getoption("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False  # the order is that of conftest.py, where the longest tests come first
    return Together(config, log)


@cache
def _shares(file: str) -> bool:
    text = (ROOT / file).read_text("utf-8")
    return file.startswith("tests/console/") or 'scope="module"' in text or "unchanged_team" in text
