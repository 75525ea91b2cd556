"""What a newcomer's machine installs: a lock file that lacks something installs nothing at all."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).parent.parent


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-dev.lock"])
def test_every_requirement_of_a_locked_package_is_locked(file: str) -> None:
    locked = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", (FOLDER / file).read_text("utf-8"), re.M)}
    assert len(locked) > 20
    missing = []
    for name in locked:
        try:
            needed = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue  # for another system, or an older Python
        for one in needed:
            if (one.marker is None or one.marker.evaluate({"extra": ""})) and canonicalize_name(one.name) not in locked:
                missing.append(f"{name} needs {one.name}")
    assert missing == []
