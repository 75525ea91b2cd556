"""A home on a file system of a network, whose server answers as a test sets; holds no assertion.

It speaks FUSE with the kernel by itself, so that a question without an answer waits as one of a dead NFS server does:
in a process that cannot be ended. Run as a program it is that server; its end lets go of everybody who waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.waiting import wait_until

WELL, HANGS, STALE, BROKEN = "well", "hangs", "stale", "broken"
_ERRORS = {STALE: errno.ESTALE, BROKEN: errno.EIO}

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _FORGETS = 25, 26, 27, 28, 29, 36, 42
_CHANGING = (4, 6, 8, 9, 10, 11, 12, 16, 35, 45)  # SETATTR, SYMLINK to LINK, WRITE, CREATE, RENAME2
_IN, _OUT = struct.Struct("=IIQQIIII"), struct.Struct("=IiQ")
_ATTRIBUTES = struct.Struct("=6Q10I")


class NetworkHome:
    """One that is mounted. answers: how its server does, one of the words above."""

    def __init__(self, path: Path, control: Path, server: subprocess.Popen[bytes]) -> None:
        self.path = path
        self._control = control
        self._server = server

    def answers(self, how: str) -> None:
        """From now on it answers so; what already waits goes on waiting."""
        following = self._control.with_name("next")
        following.write_text(how, "ascii")
        following.replace(self._control)

    def end(self) -> None:
        """End the server: whoever waits is told that nobody is there."""
        self._server.kill()
        self._server.wait()


@contextlib.contextmanager
def mounted(path: Path, uid: int, keys: str, folder: Path) -> Iterator[NetworkHome]:
    """A file system at a home, which is this account's alone, with these authorized keys; root may not look into it
    (root_squash). folder: for the server's own use.
    """
    control = folder / "answers"
    control.write_text(WELL, "ascii")
    given = [sys.executable, "-m", "tests.agent.network_home", str(path), str(uid), str(control)]
    server = subprocess.Popen(given, stdin=subprocess.PIPE)
    home = NetworkHome(path, control, server)
    try:
        assert server.stdin is not None
        server.stdin.write(keys.encode())
        server.stdin.close()
        wait_until(lambda: f" {path} fuse" in Path("/proc/self/mounts").read_text("utf-8"), "a mounted home")
        yield home
    finally:
        home.end()
        subprocess.run(["umount", "-l", str(path)], check=False)


class _Server:
    def __init__(self, uid: int, keys: bytes, control: Path, channel: int) -> None:
        self._uid = uid
        self._control = control
        self._channel = channel
        # Numbers of FUSE: the home is 1. Each has a mode, a length, and what is in it.
        self._files = {
            1: (stat.S_IFDIR | 0o700, b""),
            2: (stat.S_IFDIR | 0o700, b""),
            3: (stat.S_IFREG | 0o600, keys),
        }
        self._names = {(1, b".ssh"): 2, (2, b"authorized_keys"): 3}

    def serve(self) -> None:
        """Answer until there is nobody to answer."""
        while True:
            data = os.read(self._channel, 1 << 18)
            _, kind, unique, node, uid, _, _, _ = _IN.unpack_from(data)
            if kind in (_FORGET, _FORGETS, _INTERRUPT):
                continue
            how = self._control.read_text("ascii")
            if how == HANGS:
                continue
            problem, body = self._answer(how, kind, node, uid, data[_IN.size :])
            with contextlib.suppress(FileNotFoundError):  # whoever asked went away
                os.write(self._channel, _OUT.pack(_OUT.size + len(body), -problem, unique) + body)

    def _answer(self, how: str, kind: int, node: int, uid: int, body: bytes) -> tuple[int, bytes]:
        if kind == _INIT:
            return 0, struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 12, 9, 1 << 16, 1, 32, 0, 0)
        if how in _ERRORS:
            return _ERRORS[how], b""
        if uid != self._uid and not (kind == _GETATTR and node == 1):
            return errno.EACCES, b""
        if kind in _CHANGING:
            return errno.EROFS, b""
        if kind == _LOOKUP:
            found = self._names.get((node, body.rstrip(b"\0")))
            if found is None:
                return errno.ENOENT, b""
            return 0, struct.pack("=5Q", found, 0, 0, 0, 0) + self._attributes(found)
        if kind == _GETATTR:
            return 0, bytes(16) + self._attributes(node)
        if kind in (_OPEN, _OPENDIR):
            return 0, struct.pack("=QII", 1, 1, 0)
        if kind == _READ:
            _, offset, size = struct.unpack_from("=QQI", body)
            return 0, self._files[node][1][offset : offset + size]
        if kind == _STATFS:
            return 0, struct.pack("=5Q10I", 1, 1, 1, 1, 1, 4096, 255, 4096, *[0] * 7)
        return (0, b"") if kind in (_READDIR, _RELEASE, _RELEASEDIR, _FLUSH) else (errno.ENOSYS, b"")

    def _attributes(self, node: int) -> bytes:
        mode, data = self._files[node]
        return _ATTRIBUTES.pack(node, len(data), 1, 0, 0, 0, 0, 0, 0, mode, 1, self._uid, self._uid, 0, 4096, 0)


def _main(path: str, uid: int, control: Path) -> None:
    keys = sys.stdin.buffer.read()
    channel = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={channel},rootmode=40700,user_id=0,group_id=0,allow_other".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"server:/home", path.encode(), b"fuse", 6, options) != 0:  # MS_NOSUID | MS_NODEV
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
    _Server(uid, keys, control, channel).serve()


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
