"""A file that becomes what it was has its owner, mode and times before anybody finds it under its name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from keyrack.agent.sshd import originals

OTHER = (12345, 12346) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


@pytest.fixture
def put_in_place(monkeypatch: pytest.MonkeyPatch) -> list[os.stat_result]:
    """What the file was like at each rename."""
    seen: list[os.stat_result] = []
    rename = os.rename

    def note(source: Any, target: Any, **where: Any) -> None:
        seen.append(os.stat(source, dir_fd=where.get("src_dir_fd")))
        rename(source, target, **where)

    monkeypatch.setattr(os, "rename", note)
    return seen


def test_a_restored_file_has_its_owner_and_mode_from_the_first_moment(
    folder: Path, put_in_place: list[os.stat_result]
) -> None:
    path = folder / "sshd_config"
    path.write_bytes(b"Port 22\n")
    os.chown(path, *OTHER)
    path.chmod(0o640)
    os.utime(path, ns=(10**18, 10**18 + 5))
    before = originals.read(str(path))
    path.write_bytes(b"Port 23\n")
    originals.restore(before)
    (status,) = put_in_place
    assert (status.st_uid, status.st_gid) == OTHER
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o640, 10**18 + 5)
    assert originals.read(str(path))._replace(read_at=0) == before._replace(read_at=0)


def test_a_file_is_written_with_its_owner(folder: Path, put_in_place: list[os.stat_result]) -> None:
    originals.put(str(folder / "sshd_config"), b"Port 22\n", 0o600, OTHER)
    (status,) = put_in_place
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (*OTHER, 0o600)
