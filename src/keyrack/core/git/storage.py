"""The bare repositories on disk: where each lies, and making one; must decide nothing about who may use it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from keyrack.errors import Kind, Refusal
from keyrack.store.repositories import Repository

INIT_SECONDS = 60


def root_of(data: Path) -> Path:
    """The folder of all bare repositories, below the data folder."""
    return data.resolve() / "repositories"


def folder_of(root: Path, repository: Repository) -> Path:
    """Where a repository lies: by its unchangeable uid, so that a new name moves nothing."""
    return root / repository.uid[:2] / f"{repository.uid}.git"


def ensure(root: Path, repository: Repository, git: str) -> Path:
    """Make a repository's folder if it is not there yet, and answer it; git: the program's absolute path.

    Two at once are no harm: each prepares its own, and one of them comes into place whole. Raises Refusal
    UNAVAILABLE when it cannot be made.
    """
    folder = folder_of(root, repository)
    if (folder / "HEAD").exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        try:
            subprocess.run(
                [git, "init", "-q", "--bare", "--template=", "-b", repository.default_branch, str(made)],
                check=True,
                capture_output=True,
                timeout=INIT_SECONDS,
                env={"PATH": os.environ.get("PATH", os.defpath), **clean_environment()},
            )
            # An empty folder that somebody made gives way; a repository that was quicker does not.
            with contextlib.suppress(OSError):
                made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Refusal(Kind.UNAVAILABLE, "repository-not-made", "The repository's folder cannot be made.") from error
    if not (folder / "HEAD").exists():
        raise Refusal(Kind.UNAVAILABLE, "repository-not-made", "The repository's folder cannot be made.")
    return folder


def clean_environment() -> dict[str, str]:
    """What git gets in its environment beside PATH: nobody's settings, one language, no questions."""
    return {
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
