"""Says which paths may hang, and which homes are only mounted by a login, by the table of mounts; it opens none of
them.

A file server that is away keeps even root waiting without end (nfs(5), hard), and a process that waits for it cannot
always be killed. Paths on a disk of this machine do not hang.
"""

from __future__ import annotations

import functools
import os
import re
from typing import AbstractSet, Dict, List, Tuple

_TABLE = "/proc/self/mountinfo"
_LARGEST = 1 << 24
# File systems on this machine's disks and in memory. All others may have to ask another machine or a program.
_OWN = re.compile(
    "bcachefs|btrfs|cgroup2?|devpts|devtmpfs|erofs|exfat|ext[234]|f2fs|iso9660|jfs|msdos|nilfs2|ntfs3|overlay|proc|ramfs|"
    "reiserfs|rootfs|securityfs|squashfs|sysfs|tmpfs|udf|vfat|xfs|zfs"
)
_ESCAPED = re.compile(r"\\([0-7]{3})")
_VOLUME = re.compile(r"<volume\b[^>]*\smountpoint=\"([^\"]*)\"")


class Mounts:
    """The mounts at the moment when this is made."""

    def __init__(self) -> None:
        self._kinds = _read()

    def may_hang(self, path: str) -> bool:
        """Whether an absolute path is on a file system that may not answer. Links are not followed."""
        path = os.path.normpath(path)
        while path not in self._kinds and path != os.path.dirname(path):
            path = os.path.dirname(path)
        return _OWN.fullmatch(self._kinds.get(path, "rootfs")) is None


def may_hang(path: str) -> bool:
    """Whether one absolute path is on a file system that may not answer, by the mounts now."""
    return Mounts().may_hang(path)


def opened_by_login(home: str) -> bool:
    """Whether a home is not mounted now but is mounted by a login or by fstab(5), so that its files cannot be seen.
    Knows eCryptfs, systemd-homed, fstab(5) and pam_mount(8), as each is usually set up.

    Only in a child process that does nothing else: it caches the tables, and a link on the way may hang.
    """
    mounted, tables, volumes = _tables()
    home = os.path.normpath(home)
    folder, name = os.path.split(home)
    if {home, os.path.realpath(home)} & mounted:
        return False
    if any(map(os.path.exists, (f"{folder}/.ecryptfs/{name}", f"{home}.home", f"{home}.homedir"))):
        return True
    named = (re.sub(r"%\((?:DOMAIN_)?USER\)", name, point) for point in volumes)
    return home in tables or any(point in ("~", home) for point in named)


@functools.lru_cache(maxsize=1)
def _tables() -> Tuple[AbstractSet[str], AbstractSet[str], List[str]]:
    """The mount points, those of fstab(5), and those of pam_mount(8)."""
    lines = (line.split() for line in _text("/etc/fstab").split("\n") if not line.lstrip().startswith("#"))
    points = {_unescaped(fields[1]) for fields in lines if len(fields) > 1}
    return set(_read()), points, _VOLUME.findall(_text("/etc/security/pam_mount.conf.xml"))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(_LARGEST)
    except OSError:
        return ""


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda code: chr(int(code.group(1), 8)), text)


def _read() -> Dict[str, str]:
    """The type of file system by mount point; of several at one point the last. Empty where it cannot be read."""
    mounts: Dict[str, str] = {}
    for line in _text(_TABLE).split("\n"):
        mount, _, kind = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) > 4:
            mounts[_unescaped(fields[4])] = kind.split(" ")[0]
    return mounts
