"""Lets one process of a run make a thing that all of them use; must give out nothing half made."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this run have, and no other run's."""
    base = factory.getbasetemp()
    return base.parent if "KEYRACK_TESTS_WORKER" in os.environ else base


@contextmanager
def one_at_a_time(name: Path) -> Iterator[None]:
    """The block runs in one process at a time; name: a path to which `.lock` is added."""
    with name.with_name(f"{name.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """A folder, filled by `make` in the process that comes first; others wait for it. To be copied, not changed."""
    with one_at_a_time(folder):
        if not folder.exists():
            unfinished = folder.with_name(f"{folder.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder
