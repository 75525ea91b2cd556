"""Says on which paths no answer may come, and which homes a login opens, by what is mounted; it looks into none.

A server of files that is away has even root wait without end (nfs(5), hard), and a process that waits so cannot always
be ended. What lies on a disk of this machine answers.
"""

from __future__ import annotations

import functools
import os
import re
from typing import AbstractSet, Dict, List, Tuple

_TABLE = "/proc/self/mountinfo"
_LARGEST = 1 << 24
# Of this machine's disks and memory. Whatever else there is may have to ask another machine, or a program.
_OWN = re.compile(
    "bcachefs|btrfs|cgroup2?|devpts|devtmpfs|erofs|exfat|ext[234]|f2fs|iso9660|jfs|msdos|nilfs2|ntfs3|overlay|proc|ramfs|"
    "reiserfs|rootfs|securityfs|squashfs|sysfs|tmpfs|udf|vfat|xfs|zfs"
)
_ESCAPED = re.compile(r"\\([0-7]{3})")
_VOLUME = re.compile(r"<volume\b[^>]*\smountpoint=\"([^\"]*)\"")


class Mounts:
    """The mounts as they are at one moment."""

    def __init__(self) -> None:
        self._kinds = _read()

    def may_hang(self, path: str) -> bool:
        """Whether an absolute path lies where no answer may come. Links are not followed."""
        path = os.path.normpath(path)
        while path not in self._kinds and path != os.path.dirname(path):
            path = os.path.dirname(path)
        return _OWN.fullmatch(self._kinds.get(path, "rootfs")) is None


def may_hang(path: str) -> bool:
    """The same for one path."""
    return Mounts().may_hang(path)


def opened_by_login(home: str) -> bool:
    """Whether a home is mounted when its account logs in, or by this host's table of file systems, and is not now: what
    is in it cannot be known. By eCryptfs, systemd-homed, fstab(5) and pam_mount(8), as each is usually set up.

    Only in a process that does nothing else: it reads the tables once, and a link on the way may not answer.
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
    """Where something is mounted, where something is to be, and what pam_mount says of that."""
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
    """Where something is mounted, and of which kind; where several are, the last one counts. Empty: nobody knows."""
    mounts: Dict[str, str] = {}
    for line in _text(_TABLE).split("\n"):
        mount, _, kind = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) > 4:
            mounts[_unescaped(fields[4])] = kind.split(" ")[0]
    return mounts
