"""A folder that only its owner can change, with files that are replaced atomically; it knows nothing of keys.

Every name is resolved below one open descriptor of the folder, and no link is ever followed, so that an account
that can write elsewhere on the host cannot redirect a write of the agent.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
import sys
from typing import Iterator, List, Optional, Tuple

PUBLIC_FOLDER, PRIVATE_FOLDER = 0o755, 0o700
PUBLIC_FILE, PRIVATE_FILE = 0o644, 0o600
_EVERYBODYS = 0o055

# The name of a file until it is complete. No account can have this name, so sshd never reads such a file.
_TEMPORARY = re.compile(r"\.keyrack-[0-9a-f]{16}")
# A file that reserves space: on a full disk it is used for the file that must be written.
_RESERVE = ".keyrack-reserve"
_RESERVE_STEP = 16 * 1024
_NEW_BYTES = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_GET_FLAGS = 2 << 30 | struct.calcsize("l") << 16 | ord("f") << 8 | 1  # FS_IOC_GETFLAGS (ioctl_iflags(2))
_IMMUTABLE, _APPEND_ONLY = 0x10, 0x20
# Extended attributes that sign a file's bytes (evm, ima), and so must not be copied to another file.
OF_THE_BYTES = {"security.evm", "security.ima"}


class FolderProblem(Exception):
    """A folder that cannot be trusted; the words name the path and say what to do."""


def unsafe_because(path: str, *, sticky_is_fine: bool = False, itself: bool = False) -> Optional[str]:
    """Why another account could change what is at `path`, in words with what to do; None where none can.

    The rule is that of sshd's StrictModes for key files (sshd_config(5)): the path, with links resolved, and
    every folder above it belong to root or to the agent's account, and no group or other account may write to them.
    sticky_is_fine: folders above `path` may be sticky like /tmp, which sshd refuses but which is safe for files that
    sshd does not read; itself: `path` may be sticky too.
    """
    ours = {0, os.geteuid()}
    resolved = os.path.realpath(path)
    current = resolved
    while True:
        status = os.lstat(current)
        if status.st_uid not in ours:
            return f"{current} belongs to account number {status.st_uid}; it must belong to root or to this account"
        if status.st_mode & 0o022:
            sticky = sticky_is_fine and (itself or current != resolved) and status.st_mode & stat.S_ISVTX
            if not sticky and status.st_mode & stat.S_ISVTX:
                return f"everybody may write to {current}, as is meant for it; take a folder that lies elsewhere"
            if not sticky:
                return f"other accounts may write to {current}; take that right away: chmod go-w {current}"
        if current == os.path.dirname(current):
            return None
        current = os.path.dirname(current)


def is_append_only(path: str) -> bool:
    """Whether a file or folder is append-only (chattr +a), so that not even root can replace it or anything in it;
    False where that cannot be found out.
    """
    return bool(_flags_at(path) & _APPEND_ONLY)


def why_not(path: str, error: OSError) -> str:
    """An error at a change of a file in words, with the remedy where chattr(1) keeps even root from it."""
    said = error.strerror or str(error)
    if error.errno == errno.EPERM and "chattr" not in said:
        for place in (path, os.path.dirname(path)):
            flags = _flags_at(place)
            if flags & _IMMUTABLE:
                return f"{said}; {place} is immutable (chattr -i {place})"
            if flags & _APPEND_ONLY:
                return f"{said}; {place} is append-only (chattr -a {place})"
    return said


def mount_point(path: str) -> str:
    """The mount point of the file system of a path."""
    current = os.path.realpath(path)
    while not os.path.ismount(current):
        current = os.path.dirname(current)
    return current


class Folder:
    """An open folder. Names are single path components; every method may raise OSError."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, path: str, mode: int = PUBLIC_FOLDER, *, create: bool = False) -> Folder:
        """Open a folder, made with `mode` where it is missing and `create` says so.

        Raises FolderProblem where somebody else could change it, and OSError.
        """
        if create:
            _make(path, mode, sticky_is_fine=mode == PRIVATE_FOLDER)
        # Invariant 6: never write in a folder that a user owns.
        problem = unsafe_because(path, sticky_is_fine=mode == PRIVATE_FOLDER)
        if problem is not None:
            raise FolderProblem(problem)
        descriptor = os.open(os.path.realpath(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid():
                raise FolderProblem(f"{path} belongs to another account; run the agent as the one that owns it")
            if mode == PRIVATE_FOLDER and status.st_mode & 0o077:
                raise FolderProblem(f"other accounts may look into {path}; take that right away: chmod 700 {path}")
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._descriptor)

    def names(self) -> List[str]:
        """The names in the folder, sorted, without the agent's own unfinished files."""
        entries = os.listdir(self._descriptor)
        return sorted(name for name in entries if name != _RESERVE and not _TEMPORARY.fullmatch(name))

    def read(self, name: str, largest: int) -> bytes:
        """The bytes of a regular file; OSError for anything else and for more than `largest` bytes."""
        with self._opened(name) as descriptor:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is not a regular file", os.path.join(self.path, name))
            if status.st_size > largest:
                raise OSError(errno.EFBIG, "is larger than it can be", os.path.join(self.path, name))
            return _read_all(descriptor, largest)

    def holds(self, name: str, data: bytes) -> bool:
        """Whether a file has these bytes and the mode PUBLIC_FILE, is the agent's account's, and has no hard link."""
        try:
            with self._opened(name) as descriptor:
                status = os.fstat(descriptor)
                return (
                    stat.S_ISREG(status.st_mode)
                    and stat.S_IMODE(status.st_mode) == PUBLIC_FILE
                    and status.st_uid == os.geteuid()
                    and status.st_nlink == 1
                    and status.st_size == len(data)
                    and _read_all(descriptor, len(data)) == data
                )
        except OSError:
            return False

    def write(
        self,
        name: str,
        data: bytes,
        mode: int,
        *,
        durable: bool = True,
        owner: Optional[Tuple[int, int]] = None,
        times: Optional[Tuple[int, int]] = None,
        keep_attributes: bool = False,
        reserve: Optional[Folder] = None,
    ) -> None:
        """Write a file atomically: it has its old bytes or these, whatever happens. Call sync() afterwards.

        durable: False where it may be lost in a power cut; owner: user id and group id, where not the agent's own;
        times: of the last access and the last change, in nanoseconds; keep_attributes: copy the extended attributes
        (labels, access lists) of the file that it replaces; reserve: a folder of the same file system whose reserve
        (keep_reserve) is used on a full disk. The file appears under its name only with all of that.
        """
        # Invariant 6: a file is old or new, never partial, never emptied by an error.
        self._check_replaces()
        temporary = f".keyrack-{os.urandom(8).hex()}"
        reserved = False
        replaces = name if keep_attributes else None
        try:
            # Within this try, because a signal may end the agent at any moment.
            try:
                self._fill(temporary, os.O_CREAT | os.O_EXCL, data, mode, durable, owner, times, replaces)
            except OSError as error:
                if reserve is None or error.errno not in _NO_ROOM:
                    raise
                reserved = self._take_reserve(reserve, temporary, len(data))
                if not reserved:
                    raise
                self._fill(temporary, 0, data, mode, durable, owner, times, replaces)
            # A link or a pipe that somebody put under the name is replaced, not followed or opened.
            os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=self._descriptor)
            raise
        if reserve is not None and reserved:
            # From the space of the replaced file, before something else takes it.
            reserve.keep_reserve(len(data))

    def _check_replaces(self) -> None:
        """Raise OSError for an append-only folder: an unfinished file could be neither renamed nor removed there, and
        each try would leave one more.
        """
        if _flags(self._descriptor) & _APPEND_ONLY:
            raise OSError(errno.EPERM, f"{self.path} is append-only (chattr -a {self.path})", self.path)

    def _fill(
        self,
        name: str,
        flags: int,
        data: bytes,
        mode: int,
        durable: bool,
        owner: Optional[Tuple[int, int]],
        times: Optional[Tuple[int, int]],
        replaces: Optional[str],
    ) -> None:
        descriptor = os.open(name, flags | _NEW_BYTES, PRIVATE_FILE, dir_fd=self._descriptor)
        try:
            _write_all(descriptor, data)
            made = os.fstat(descriptor)
            if made.st_size > len(data):
                os.ftruncate(descriptor, len(data))
            if owner is not None and (made.st_uid, made.st_gid) != owner:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            if replaces is not None:
                self._copy_attributes(replaces, descriptor)
            if times is not None:
                os.utime(descriptor, ns=times)
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def keep_reserve(self, largest: int) -> None:
        """Reserve space for a file of `largest` bytes and some more, as far as there is any."""
        wanted = (largest // _RESERVE_STEP + 2) * _RESERVE_STEP
        with contextlib.suppress(OSError):
            try:
                has = os.stat(_RESERVE, dir_fd=self._descriptor, follow_symlinks=False).st_size
            except FileNotFoundError:
                has = 0
            if has < wanted:
                flags = os.O_CREAT | os.O_APPEND | _NEW_BYTES
                descriptor = os.open(_RESERVE, flags, PRIVATE_FILE, dir_fd=self._descriptor)
                try:
                    _write_all(descriptor, bytes(wanted - has))  # not a sparse file, which reserves nothing
                finally:
                    os.close(descriptor)

    def drop_reserve(self) -> None:
        """Remove the reserve, when the agent is uninstalled."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_RESERVE, dir_fd=self._descriptor)

    def _take_reserve(self, reserve: Folder, name: str, size: int) -> bool:
        """Move a folder's reserve to a name here. Answers False where there is none of at least this size."""
        try:
            status = os.stat(_RESERVE, dir_fd=reserve._descriptor, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_size < size:
                return False
            os.rename(_RESERVE, name, src_dir_fd=reserve._descriptor, dst_dir_fd=self._descriptor)
        except OSError:
            return False
        return True

    def _copy_attributes(self, name: str, descriptor: int) -> None:
        """Copy the extended attributes of the file of this name, if there is one, to an open file."""
        if not hasattr(os, "listxattr"):
            return
        try:
            with self._opened(name) as replaced:
                keys = set(os.listxattr(replaced)) - OF_THE_BYTES
                wanted = {key: os.getxattr(replaced, key) for key in keys}
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTSUP):
                return
            raise
        has = {key: os.getxattr(descriptor, key) for key in os.listxattr(descriptor)}
        for key, value in wanted.items():
            if has.get(key) != value:
                os.setxattr(descriptor, key, value)

    @contextlib.contextmanager
    def instead(self, name: str, data: bytes) -> Iterator[None]:
        """Within the block a file has these bytes and the mode PUBLIC_FILE; after it, it is the same file as before, or
        none where there was none.

        Restoring it needs no space. The bytes are synced before the file has its name: otherwise a power cut could
        leave an empty file, and an empty file of revoked keys revokes nothing.
        """
        self._check_replaces()
        kept = f".keyrack-{os.urandom(8).hex()}"
        here = {"src_dir_fd": self._descriptor, "dst_dir_fd": self._descriptor}
        try:
            os.link(name, kept, follow_symlinks=False, **here)
        except FileNotFoundError:
            kept = ""
        try:
            self.write(name, data, PUBLIC_FILE)
            yield
        finally:
            if kept:
                # If the file was not replaced, both names are one file, and the rename keeps both (rename(2)).
                os.rename(kept, name, **here)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(kept, dir_fd=self._descriptor)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self._descriptor)

    def remove(self, name: str) -> None:
        """Remove a file, link or pipe; not a folder. Call sync() afterwards."""
        os.unlink(name, dir_fd=self._descriptor)

    def let_pass(self) -> bool:
        """Let every account list and enter the folder. Answers whether that changed its mode."""
        mode = stat.S_IMODE(os.fstat(self._descriptor).st_mode)
        if mode & _EVERYBODYS == _EVERYBODYS:
            return False
        os.fchmod(self._descriptor, mode | _EVERYBODYS)
        return True

    def is_folder(self, name: str) -> bool:
        """Whether a folder has this name."""
        return stat.S_ISDIR(os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mode)

    def sweep(self) -> None:
        """Remove what a killed agent left unfinished. Only one agent may work in a folder."""
        for name in os.listdir(self._descriptor):
            if _TEMPORARY.fullmatch(name):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._descriptor)

    def sync(self) -> None:
        """Make renames and removals survive a power cut."""
        os.fsync(self._descriptor)

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        # O_NONBLOCK: opening a pipe that somebody put there must not wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=self._descriptor)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _make(path: str, mode: int, *, sticky_is_fine: bool) -> None:
    """Make a folder, and missing ones above it with PUBLIC_FOLDER, where no other account can redirect it.

    Each parent is checked before anything is made in it, so that nothing is made below a link or folder of another
    account. Raises FolderProblem or OSError.
    """
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make(parent, PUBLIC_FOLDER, sticky_is_fine=sticky_is_fine)
    # Invariant 6: never write in a folder that a user owns.
    problem = unsafe_because(parent, sticky_is_fine=sticky_is_fine, itself=True)
    if problem is not None:
        raise FolderProblem(problem)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    above = os.open(os.path.realpath(parent), flags)
    try:
        os.mkdir(os.path.basename(path), 0o700, dir_fd=above)
        made = os.open(os.path.basename(path), flags, dir_fd=above)
        try:
            # Where others may write, they may have put another folder there by now.
            if os.fstat(made).st_uid != os.geteuid():
                raise FolderProblem(f"{path} belongs to another account")
            # Not left to the umask: sshd reads key files as the user who logs in.
            os.fchmod(made, mode)
        finally:
            os.close(made)
        # Files in it survive a power cut only if the folder itself does.
        os.fsync(above)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    finally:
        os.close(above)


def _flags_at(path: str) -> int:
    """The flags of chattr(1) of a file or folder; 0 where they cannot be found out."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return _flags(descriptor)
    finally:
        os.close(descriptor)


def _flags(descriptor: int) -> int:
    try:
        answer = fcntl.ioctl(descriptor, _GET_FLAGS, bytes(struct.calcsize("l")))
    except OSError:  # a file system that has no such flags
        return 0
    return int.from_bytes(answer[:4], sys.byteorder)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_all(descriptor: int, largest: int) -> bytes:
    """Up to one byte more than `largest`, so that a longer file never looks equal."""
    pieces = []
    wanted = largest + 1
    while wanted:
        piece = os.read(descriptor, min(wanted, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)
