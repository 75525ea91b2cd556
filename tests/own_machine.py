"""The accounts, homes and settings of a machine for the tests of one process alone; must change nothing of the machine.

As root this process, and all that it starts, goes into a name space of mounts with its own /etc, /home, /var/mail and
/usr/local, which end with it. So tests make accounts side by side, and this machine's own files stay as they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000  # the same names: it tells who belongs to these tests (leftovers.py)
ACCOUNTS = 20  # that the tests of one process may have at once

_SETUP = """set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
tries=0
until cp -a /etc "$1/etc"; do # a file that somebody replaces may be gone when its turn comes
    tries=$((tries + 1))
    [ "$tries" -lt 5 ]
    rm -rf "$1/etc"
done
mkdir "$1/changes" "$1/work" "$1/home" "$1/mail"
cat >>"$1/etc/login.defs" <<END
UID_MIN $2
UID_MAX $3
GID_MIN $2
GID_MAX $3
SUB_UID_COUNT 0
SUB_GID_COUNT 0
END
mount --bind "$1/etc" /etc
mount --bind "$1/home" /home
mount --bind "$1/mail" /var/mail
mount -t overlay -o "lowerdir=/usr/local,upperdir=$1/changes,workdir=$1/work" overlay /usr/local
umount -l "$1"
"""

taken = False


def take() -> None:
    """Go into a machine of one's own, where that can be done; `taken` tells. Call it on the thread of the tests."""
    global taken
    if taken or not can_be_taken():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    # Numbers of accounts are the whole machine's: who stops all processes of its account must not stop another's.
    first = 100_000 + os.getpid() % 30_000 * ACCOUNTS
    folder = tempfile.mkdtemp(prefix="keyrack-machine-")
    try:
        if libc.unshare(CLONE_NEWNS | CLONE_NEWUTS) != 0:
            return
        given = ["/bin/sh", "-c", _SETUP, "sh", folder, str(first), str(first + ACCOUNTS - 1)]
        ended = subprocess.run(given, capture_output=True, text=True, check=False, timeout=60)
        if ended.returncode != 0:
            raise RuntimeError(f"half of a machine for the tests was made:\n{ended.stderr}")
        taken = True
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(folder)


@cache
def can_be_taken() -> bool:
    """Whether take() works here; tried in a process of its own, as one cannot go back."""
    needed = (Path(__file__).resolve(), Path(sys.prefix).resolve(), Path.home().resolve(), Path(tempfile.gettempdir()))
    if os.geteuid() != 0 or shutil.which("unshare") is None or any(Path("/home") in path.parents for path in needed):
        return False
    with tempfile.TemporaryDirectory(prefix="keyrack-machine-") as folder:
        tried = ["unshare", "-m", "/bin/sh", "-c", _SETUP, "sh", folder, "1000", "1019"]
        return subprocess.run(tried, capture_output=True, check=False, timeout=60).returncode == 0
