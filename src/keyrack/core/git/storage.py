"""The bare repositories on disk: finds and makes their folders, sets HEAD, and removes folders long after a deletion;
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
"""A deleted repository's folder stays for so many seconds, in case an older backup is restored."""
UNFINISHED_AFTER = 24 * 3600.0
"""An unfinished folder older than so many seconds is abandoned."""
MISSED = "keyrack-deleted"
"""A file in a folder that belongs to no repository: for how many seconds that has been seen, until it was written."""
MAX_COUNTED = 24 * 3600.0
"""At most so many seconds count between two looks: a clock that leaps years ahead deletes nothing before its time."""
BATCH_SIZE = 1000
BRANCHES = "refs/heads/"
NO_DEFAULT = "refs/heads/HEAD"
"""git accepts such a branch from clients, but cannot check it out in clones."""
USUAL_BRANCHES = ("main", "master", "trunk", "develop")
"""Names that default branches often have, the most likely first."""


def root_of(data: Path) -> Path:
    """The folder of all bare repositories, below the data folder."""
    return data.resolve() / "repositories"


def folder_of(root: Path, repository: Repository) -> Path:
    """The folder of a repository, by its uid, which never changes, so that a new path moves nothing."""
    return root / repository.uid[:2] / f"{repository.uid}.git"


def ensure(root: Path, repository: Repository, git: str) -> Path:
    """Make a repository's folder unless it is there, and answer it; git: the program's absolute path.

    Two processes may do this at once: each prepares a folder of its own, and one of these is renamed into place. Raises
    Refusal UNAVAILABLE where it cannot be made.
    """
    folder = folder_of(root, repository)
    if (folder / "HEAD").exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        prepared = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        try:
            subprocess.run(
                [git, "init", "-q", "--bare", "--template=", "-b", repository.default_branch, str(prepared)],
                check=True,
                capture_output=True,
                timeout=INIT_SECONDS,
                env={"PATH": os.environ.get("PATH", os.defpath), **clean_environment()},
            )
            for place, _, names in os.walk(prepared):
                for path in (*(Path(place, name) for name in names), Path(place)):
                    sync(path)
            # This replaces an empty folder, and fails where another process was quicker.
            with contextlib.suppress(OSError):
                prepared.rename(folder)
            sync(folder.parent)
            sync(root)
        finally:
            shutil.rmtree(prepared, ignore_errors=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Refusal(Kind.UNAVAILABLE, "repository-not-made", "The repository's folder cannot be made.") from error
    if not (folder / "HEAD").exists():
        raise Refusal(Kind.UNAVAILABLE, "repository-not-made", "The repository's folder cannot be made.")
    return folder


def first_branch(folder: Path, changed: str) -> str | None:
    """The branch that HEAD is to name after a push: the first new one, where HEAD's own branch is missing. Of several
    pushed at once, as when somebody moves a repository here, a usual name comes first.

    changed: lines "OLD NEW REF" of git's post-receive hook. None where HEAD is right already, or none of the branches
    can be checked out: not one named HEAD, nor one whose name is no UTF-8.
    """
    try:
        head = (folder / "HEAD").read_text("utf-8").strip().removeprefix("ref: ")
        packed = folder / "packed-refs"
        names = packed.read_text("utf-8", "replace").split() if packed.exists() else ()
    except (OSError, UnicodeError):
        return None

    def is_there(ref: str) -> bool:
        # A folder is no branch; it has branches below it, such as main/topic.
        return ref in names or os.path.isfile(folder / ref)

    if is_there(head):
        return None
    new_branches = []
    for line in changed.splitlines():
        old, new, ref = (*line.split(" ", 2), "", "")[:3]
        is_new = ref.startswith(BRANCHES) and new.strip("0") and not old.strip("0")
        if is_new and ref != NO_DEFAULT and is_there(ref):
            new_branches.append(ref.removeprefix(BRANCHES))
    return next((name for name in USUAL_BRANCHES if name in new_branches), next(iter(new_branches), None))


def point_head(folder: Path, branch: str) -> None:
    """Make a branch the one that clones check out. Raises OSError."""
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, delete=False) as new_head:
        new_head.write(f"ref: {BRANCHES}{branch}\n")
    Path(new_head.name).chmod(0o644)
    sync(Path(new_head.name))
    Path(new_head.name).replace(folder / "HEAD")
    sync(folder)


def sync_push(folder: Path, changed: str) -> None:
    """Sync the folders in which a push changed files, so that the changes outlive a power cut; git syncs only the
    files.

    changed: lines as first_branch() takes them. Raises OSError.
    """
    names = [line.split(" ", 2)[-1] for line in changed.splitlines()]
    above = {parent for name in names for parent in (folder / name).parents if parent.is_relative_to(folder)}
    for place in sorted({*above, folder / "objects" / "pack"}, key=str, reverse=True):
        with contextlib.suppress(FileNotFoundError):  # of branches that were deleted
            sync(place)


def remove_deleted(database: Database, root: Path, *, older_than: float = KEPT_AFTER_DELETION) -> list[Path]:
    """Remove the folders of repositories that were deleted more than `older_than` seconds ago, and answer them.

    The time counts from when a folder was first found to belong to no repository, and is dropped where it belongs to
    one again. Raises DatabaseUnavailable: without an answer nothing is known to be deleted.
    """
    removed = []
    for unfinished in root.glob("*/.gone-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    for unfinished in root.glob("*/.new-*"):  # left by a process that was killed while it made one
        with contextlib.suppress(OSError):
            if time.time() - unfinished.stat().st_mtime > UNFINISHED_AFTER:
                shutil.rmtree(unfinished, ignore_errors=True)
    for batch in chunks(sorted(root.glob("*/*.git")), BATCH_SIZE):
        known = database.read(lambda connection, batch=batch: uids_of(connection, [each.stem for each in batch]))  # type: ignore[misc]
        for folder in batch:
            note = folder / MISSED
            if folder.stem in known:
                note.unlink(missing_ok=True)
            elif _missed_seconds(note) > older_than:
                # Renamed first, so that nobody finds half of it.
                trash = Path(tempfile.mkdtemp(prefix=".gone-", dir=folder.parent))
                folder.rename(trash / folder.name)
                shutil.rmtree(trash)
                removed.append(folder)
    return removed


def _missed_seconds(note: Path) -> float:
    """How long a folder has been missed, which is counted on."""
    try:
        seconds = float(note.read_text("ascii") or 0)
        seconds += min(max(time.time() - note.stat().st_mtime, 0), MAX_COUNTED)
    except (FileNotFoundError, ValueError):
        seconds = 0.0
    note.write_text(str(seconds), "ascii")
    return seconds


def clean_environment() -> dict[str, str]:
    """git's environment beside PATH: nobody's settings, one language, no questions."""
    return {
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        # Ignore what somebody pushed below refs/replace: git would stop at every later push.
        "GIT_NO_REPLACE_OBJECTS": "1",
        "LC_ALL": "C",
    }
