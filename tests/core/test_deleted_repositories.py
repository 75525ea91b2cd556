"""A deleted repository's folder goes after its time, and none that a repository has ever does."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from keyrack.core.git import repositories, storage
from keyrack.core.people import users
from tests.core.conftest import Team

DAY = 24 * 3600
PROJECT = "aa2d97d7e62c4b7da3ffdfc11551f878"


def test_the_folder_of_a_deleted_repository_goes_after_its_time(team: Team, tmp_path: Path) -> None:
    database, git = team.instance.database, shutil.which("git")
    assert git is not None
    users.ensure_project(team.instance, team.owner, name="cn-north-4", uid=PROJECT)
    kept, gone = (
        repositories.create(team.instance, team.owner, name=name, project_uid=PROJECT) for name in ("kept", "gone")
    )
    root = tmp_path / "repositories"
    of_kept, of_gone = (storage.ensure(root, each, git) for each in (kept, gone))
    assert storage.remove_deleted(database, root, older_than=0) == []
    repositories.delete(team.instance, team.owner, gone.id)
    # Deleted long ago or just now: the time counts from when it was first seen.
    os.utime(of_gone, (0, 0))
    assert storage.remove_deleted(database, root) == []
    note = of_gone / storage.MISSED
    for _ in range(29):
        os.utime(note, (time.time() - DAY,) * 2)
        assert storage.remove_deleted(database, root) == []
    # The clock leaps ahead, or was years behind when it was seen last, and back.
    os.utime(note, (0, 0))
    assert storage.remove_deleted(database, root) == []
    os.utime(note, (time.time() + 3650 * DAY,) * 2)
    assert storage.remove_deleted(database, root) == []
    os.utime(note, (time.time() - DAY,) * 2)
    assert storage.remove_deleted(database, root) == [of_gone]
    assert list(root.glob("*/*")) == [of_kept]


def test_a_repository_that_comes_back_keeps_its_folder(team: Team, tmp_path: Path) -> None:
    """As when a backup of before its deletion is restored, on the thirtieth day."""
    database, git = team.instance.database, shutil.which("git")
    assert git is not None
    users.ensure_project(team.instance, team.owner, name="cn-north-4", uid=PROJECT)
    back = repositories.create(team.instance, team.owner, name="back", project_uid=PROJECT)
    folder = storage.ensure(tmp_path, back, git)
    note = folder / storage.MISSED
    note.write_text(str(31 * DAY), "ascii")
    assert storage.remove_deleted(database, tmp_path) == []
    assert (folder / "HEAD").exists()
    assert not note.exists()


def test_a_half_made_folder_of_a_killed_process_is_removed(team: Team, tmp_path: Path) -> None:
    left, under_way = tmp_path / "ab" / ".new-killed", tmp_path / "ab" / ".new-working"
    for folder in (left, under_way):
        (folder / "objects").mkdir(parents=True)
    os.utime(left, (time.time() - 2 * DAY,) * 2)
    storage.remove_deleted(team.instance.database, tmp_path)
    assert not left.exists()
    assert under_way.exists()
