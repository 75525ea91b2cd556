"""What one push, one fetch and one repository may take of the Git host; must not decide who may do what.

git's own settings come first, then the kernel's limits for processes, and last the checks of the disk: how large a
repository is, and how much room is left.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from keyrack.core.git.access import GitAccess
from keyrack.errors import Kind, Refusal
from keyrack.settings import Settings

# References that one push may create, change or delete, and that a repository may hold.
MAX_REFS_PER_PUSH = 10_000
MAX_REFS = 100_000
# Faults of old history that harm nobody.
HARMLESS = ("badTimezone", "missingSpaceBeforeDate", "zeroPaddedFilemode")
# The filters of partial clones whose cost grows with the objects. Others (sparse:oid) make the server walk a tree once
# for each path that leads to it, and a few kilobytes of trees can have more paths than can be walked.
FILTERS = ("blob:none", "blob:limit", "tree", "object:type")
DEEPEST_FILTERED_TREE = 4
ENDLESS = 1 << 50
BIG_FILE = 512 * 1024 * 1024
"""Git's own default."""
ROOM_FOR_BASES = 64 * 1024 * 1024
# Seconds beyond the longest transfer, after which its temporary files count as abandoned.
LEFT_OVER_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a repository: bytes on the disk, also of transfers under way, and its number of references."""

    bytes: int
    refs: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What each process of an operation may take; 0 is no limit. file_bytes: of one file."""

    cpu_seconds: int
    memory_bytes: int
    file_bytes: int


def limits_of(settings: Settings, *, push: bool) -> Limits:
    """The kernel's limits for git in an operation."""
    # Objects of a push may have bases that the repository has; git appends these to the file, at most ROOM_FOR_BASES.
    written = 2 * settings.git_max_push_bytes + ROOM_FOR_BASES if push else 0
    return Limits(settings.git_max_cpu_seconds, settings.git_max_memory_bytes, written)


def settings_of_git(*, push: bool, hooks: str, most_input: int) -> dict[str, str]:
    """git's settings for an operation, for `-c`: they count above those of repositories, also of older ones.

    hooks: the folder of the hooks that run; most_input: bytes that a push may send.
    """
    return {
        # Hooks that somebody put into a repository never run.
        "core.hooksPath": hooks,
        "safe.directory": "*",
        "core.protectHFS": "true",
        "core.protectNTFS": "true",
        # Larger objects are streamed, past the limit of memory; in a push none may be.
        "core.bigFileThreshold": str(ENDLESS if push else BIG_FILE),
        # git recurses, and deeper trees exhaust its stack; older versions ignore the setting.
        "core.maxTreeDepth": "2048",
        "pack.threads": "1" if push else "2",
        "pack.windowMemory": "200m",
        **(_of_push(most_input) if push else _of_fetch()),
    }


def _of_push(most_input: int) -> dict[str, str]:
    return {
        "receive.advertisePushOptions": "false",
        # Refuses what harms those who clone it: `.git` in a tree however it is spelled, a .gitmodules that names
        # options, malformed objects.
        "transfer.fsckObjects": "true",
        "receive.fsckObjects": "true",
        **{f"receive.fsck.{name}": "ignore" for name in HARMLESS},
        "receive.maxInputSize": str(most_input),
        # A push stays the pack that it came as, and is never unpacked on the disk.
        "receive.unpackLimit": "1",
        "receive.shallowUpdate": "false",
        # Without this a power cut may lose references that a push was told are written.
        "core.fsync": "reference",
        # The default refuses too, but advises the pusher to change this setting, which they cannot.
        "receive.denyDeleteCurrent": "refuse",
        "receive.keepAlive": "5",
        # The authorizer does this, for one repository at a time.
        "receive.autogc": "false",
    }


def _of_fetch() -> dict[str, str]:
    return {
        "uploadpack.allowFilter": "true",
        "uploadpack.allowReachableSHA1InWant": "true",
        "uploadpack.advertiseBundleURIs": "false",
        "uploadpack.keepAlive": "5",
        "transfer.advertiseObjectInfo": "false",
        "uploadpackfilter.allow": "false",
        **{f"uploadpackfilter.{name}.allow": "true" for name in FILTERS},
        "uploadpackfilter.tree.maxDepth": str(DEEPEST_FILTERED_TREE),
    }


def too_many(settings: Settings, access: GitAccess, under_way: Iterable[GitAccess]) -> Refusal | None:
    """The refusal of one more operation beside those under way, None where there is room for it."""
    others = list(under_way)
    counted_for = _counted_for(access)
    if sum(_counted_for(other) == counted_for for other in others) >= settings.git_max_sessions_each:
        return Refusal(
            Kind.UNAVAILABLE,
            "too-many-sessions",
            f"You have {settings.git_max_sessions_each} Git operations under way, the most that one may have; "
            "try again when one has ended.",
        )
    if len(others) >= settings.git_max_sessions:
        return Refusal(Kind.UNAVAILABLE, "too-many-sessions", "Git is very busy at the moment; try again in a minute.")
    return None


def _counted_for(access: GitAccess) -> tuple[str, int | str]:
    """For whom an operation counts: a user with all keys, or a deploy key."""
    holder = access.holder
    return holder.kind, holder.fingerprint if holder.actor.user_id is None else holder.actor.user_id


def measure(folder: Path) -> Size:
    """The size of a repository now; files may come and go meanwhile."""
    total = refs = 0
    for entry in _files(folder):
        try:
            total += entry.stat(follow_symlinks=False).st_blocks * 512
        except OSError:
            continue
        refs += entry.path.startswith(f"{folder}/refs/")
    return Size(total, refs + _packed_refs(folder))


def fullness(settings: Settings, folder: Path, size: Size) -> str:
    """Why a repository takes nothing new, in words for people who push; "" where it does."""
    if size.bytes >= settings.git_max_repository_bytes:
        return _full(settings)
    if size.refs >= MAX_REFS:
        return f"The repository has {size.refs} branches and tags, the most it may have. Only deletions are taken."
    return _disk(settings, folder)


def overflow(settings: Settings, folder: Path) -> str:
    """Why the pushes under way to a repository must stop, in words for these people; "" where they need not."""
    if measure(folder).bytes > settings.git_max_repository_bytes:
        return _full(settings)
    return _disk(settings, folder)


def _full(settings: Settings) -> str:
    return (
        f"The repository is full: it may take {settings.git_max_repository_bytes} bytes on the disk. "
        "Only deletions are taken."
    )


def _disk(settings: Settings, folder: Path) -> str:
    if shutil.disk_usage(folder).free >= settings.git_keep_free_bytes:
        return ""
    return "The disk of this Git host is nearly full, so nothing new is taken. Tell its administrator."


def most_input(settings: Settings, folder: Path) -> tuple[int, str]:
    """How many bytes a push may send to a repository now, and why that is 1, or "".

    Never 0, which git takes for no limit. 1 allows only deletions, as an object takes more than a byte.
    """
    size = measure(folder)
    words = fullness(settings, folder, size)
    if words:
        return 1, words
    return max(1, min(settings.git_max_push_bytes, settings.git_max_repository_bytes - size.bytes)), ""


def remove_left_over(folder: Path, *, older_than: float) -> list[Path]:
    """Remove what killed pushes have left in a repository, and answer it; older_than: seconds, longer than any
    operation.

    These are folders in which a push waits to be judged, parts of packs, and locks of references, which would refuse
    every later push to these.
    """
    removed = []
    for path in _left_over(folder, time.time() - older_than):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def remove_left_over_everywhere(root: Path, *, older_than: float) -> list[Path]:
    """The same in all repositories below a folder."""
    return [path for folder in root.glob("*/*.git") for path in remove_left_over(folder, older_than=older_than)]


def abandoned_after_seconds(settings: Settings) -> float:
    """The age in seconds from which temporary files in a repository count as abandoned."""
    return settings.git_max_transfer_seconds + LEFT_OVER_SECONDS


def _left_over(folder: Path, before: float) -> Iterator[Path]:
    objects = folder / "objects"
    for pattern in ("incoming-*", "tmp_objdir-*", "pack/tmp_*", "pack/.tmp-*"):
        yield from (path for path in objects.glob(pattern) if _is_older(path, before))
    locks = [folder / "packed-refs.lock", folder / "HEAD.lock", folder / "config.lock", folder / "shallow.lock"]
    locks += [Path(entry.path) for entry in _files(folder / "refs") if entry.name.endswith(".lock")]
    yield from (path for path in locks if _is_older(path, before))


def _is_older(path: Path, before: float) -> bool:
    """Whether nothing in it was written since; while a pack is received, the file changes and its folder does not."""
    try:
        newest = max([path.lstat().st_mtime, *(entry.stat().st_mtime for entry in _files(path))])
    except OSError:
        return False
    return newest < before


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        yield entry
        except OSError:
            continue


def _packed_refs(folder: Path) -> int:
    """The number of packed references, one in each line; lines with ^ say what a tag points to."""
    count = 0
    try:
        with (folder / "packed-refs").open("rb") as lines:
            count = sum(1 for line in lines if line[:1] not in (b"#", b"^"))
    except OSError:
        pass
    return count
