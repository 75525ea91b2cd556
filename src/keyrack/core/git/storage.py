"""The bare repositories on disk: finds and makes their folders, sets HEAD, removes them long after they were deleted;
must decide nothing about who may use one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from keyrack.errors import Kind, Refusal
from keyrack.store.chunks import chunks
from keyrack.store.database import Database
from keyrack.store.engine.disk import sync
from keyrack.store.git.repositories import Repository, uids_of

INIT_SECONDS = 60
KEPT_AFTER_DELETION = 30 * 24 * 3600.0
"""How long a deleted repository's folder stays, in seconds: whoever restores a backup of before finds it there."""
UNFINISHED_AFTER = 24 * 3600.0
"""So old, in seconds, is no folder that somebody is still making."""
MISSED = "keyrack-deleted"
"""A file in a folder that belongs to no repository: for how many seconds that has been seen, until it was written."""
MOST_COUNTED = 24 * 3600.0
"""So many seconds at most count between two looks: a clock that leaps years ahead deletes nothing before its time."""
AT_ONCE = 1000
BRANCHES = "refs/heads/"
NO_DEFAULT = "refs/heads/HEAD"
"""Git takes such a branch from clients, and finds no way to it in their clones."""
USUAL_BRANCHES = ("main", "master", "trunk", "develop")
"""Names that default branches often have, the most likely first."""


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
            for place, _, names in os.walk(made):
                for path in (*(Path(place, name) for name in names), Path(place)):
                    sync(path)
            # An empty folder that somebody made gives way; a repository that was quicker does not.
            with contextlib.suppress(OSError):
                made.rename(folder)
            sync(folder.parent)
            sync(root)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Refusal(Kind.UNAVAILABLE, "repository-not-made", "The repository's folder cannot be made.") from error
    if not (folder / "HEAD").exists():
        raise Refusal(Kind.UNAVAILABLE, "repository-not-made", "The repository's folder cannot be made.")
    return folder


def first_branch(folder: Path, changed: str) -> str | None:
    """The branch that a repository's HEAD is to name after a push: the first new one, where HEAD's own is not there. Of
    several at once, as who moves a repository here sends them, a usual name comes first.

    changed: lines "OLD NEW REF" as git's post-receive hook has them. None where HEAD is right already, and where none
    of them can be checked out: no branch HEAD can, nor one whose name is no UTF-8.
    """
    try:
        head = (folder / "HEAD").read_text("utf-8").strip().removeprefix("ref: ")
        packed = folder / "packed-refs"
        names = packed.read_text("utf-8", "replace").split() if packed.exists() else ()
    except (OSError, UnicodeError):
        return None

    def is_there(ref: str) -> bool:
        # A folder is none: of branches below it, as in main/topic.
        return ref in names or os.path.isfile(folder / ref)

    if is_there(head):
        return None
    made = []
    for line in changed.splitlines():
        old, new, ref = (*line.split(" ", 2), "", "")[:3]
        is_new = ref.startswith(BRANCHES) and new.strip("0") and not old.strip("0")
        if is_new and ref != NO_DEFAULT and is_there(ref):
            made.append(ref.removeprefix(BRANCHES))
    return next((name for name in USUAL_BRANCHES if name in made), next(iter(made), None))


def point_head(folder: Path, branch: str) -> None:
    """Have a clone check this branch out. Raises OSError."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, delete=False) as made:
        made.write(f"ref: {BRANCHES}{branch}\n")
    Path(made.name).chmod(0o644)
    sync(Path(made.name))
    Path(made.name).replace(folder / "HEAD")
    sync(folder)


def keep(folder: Path, changed: str) -> None:
    """Have what a push changed outlive a power cut: git writes the files through to the disk, and not the folders in
    which they came into place. changed: lines as first_branch() takes them. Raises OSError.
    """
    names = [line.split(" ", 2)[-1] for line in changed.splitlines()]
    above = {parent for name in names for parent in (folder / name).parents if parent.is_relative_to(folder)}
    for place in sorted({*above, folder / "objects" / "pack"}, key=str, reverse=True):
        with contextlib.suppress(FileNotFoundError):  # of branches that were deleted
            sync(place)


def remove_deleted(database: Database, root: Path, *, older_than: float = KEPT_AFTER_DELETION) -> list[Path]:
    """Remove the folders of repositories that were deleted so many seconds ago, and answer them.

    The time counts from when a folder was first found to be no repository's, and ends with a repository that has it
    again. Raises DatabaseUnavailable, as no answer is not a no.
    """
    removed = []
    for unfinished in root.glob("*/.gone-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    for unfinished in root.glob("*/.new-*"):  # of a process that was killed while it made one
        with contextlib.suppress(OSError):
            if time.time() - unfinished.stat().st_mtime > UNFINISHED_AFTER:
                shutil.rmtree(unfinished, ignore_errors=True)
    for batch in chunks(sorted(root.glob("*/*.git")), AT_ONCE):
        known = database.read(lambda connection, batch=batch: uids_of(connection, [each.stem for each in batch]))  # type: ignore[misc]
        for folder in batch:
            note = folder / MISSED
            if folder.stem in known:
                note.unlink(missing_ok=True)
            elif _missed_seconds(note) > older_than:
                # Out of the way at once, so that nobody meets half of it.
                gone = Path(tempfile.mkdtemp(prefix=".gone-", dir=folder.parent))
                folder.rename(gone / folder.name)
                shutil.rmtree(gone)
                removed.append(folder)
    return removed


def _missed_seconds(note: Path) -> float:
    """How long a folder has been missed, which is counted on."""
    try:
        seconds = float(note.read_text("ascii") or 0)
        seconds += min(max(time.time() - note.stat().st_mtime, 0), MOST_COUNTED)
    except (FileNotFoundError, ValueError):
        seconds = 0.0
    note.write_text(str(seconds), "ascii")
    return seconds


def clean_environment() -> dict[str, str]:
    """What git gets in its environment beside PATH: nobody's settings, one language, no questions."""
    return {
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        # What somebody pushed below refs/replace stands for nothing here: git would stop at every later push.
        "GIT_NO_REPLACE_OBJECTS": "1",
        "LC_ALL": "C",
    }
