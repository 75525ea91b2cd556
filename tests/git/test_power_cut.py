"""The power fails after pushes that were acknowledged: the repositories have what was pushed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.core.workspace import apply as workspace_apply
from tests.agent.test_power_cut import Disk, someone_syncs
from tests.git.people import Site, run, start_host
from tests.git.test_rights import ALICE, push
from tests.login.private_sshd import strict_folder
from tests.services import TEAM, running, settings_for


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of their own for repositories."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    made = Disk(tmp_path / "image", data / "repositories")
    made.begin()
    yield made
    made.end()


@pytest.fixture
def site(disk: Disk, tmp_path: Path) -> Iterator[Site]:
    """A service and Git over SSH, with its repositories on that disk."""
    people = tmp_path / "people"
    people.mkdir()
    with running(settings_for(disk.path.parent, "", git_keep_free_bytes=0)) as service, strict_folder() as folder:
        workspace_apply.apply(service.instance, TEAM, {})
        host = start_host(service, folder)
        try:
            yield Site(service, host, people)
        finally:
            host.stop()


@pytest.mark.parametrize("synced", [False, True])
@pytest.mark.parametrize("branch", ["main", "team/topic"])
def test_an_acknowledged_push_is_there_after_a_power_cut(site: Site, disk: Disk, branch: str, synced: bool) -> None:
    """synced: what stands in folders went to the disk meanwhile, and what stands in files did not."""
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    for _ in range(2):
        assert push(alice, "acme/site", branch).code == 0
        pushed = alice.git("ls-remote", alice.url("acme/site"), "HEAD", branch).out
        assert pushed.count(b"\n") == 2
        if synced:
            someone_syncs(disk)
        with disk.after_a_cut() as found:
            (folder,) = found.glob("*/*.git")
            listed = run(["git", "-c", "safe.directory=*", "ls-remote", str(folder), "HEAD", branch])
            checked = run(["git", "-c", "safe.directory=*", "-C", str(folder), "fsck", "--full"])
        assert listed.out == pushed, listed.said
        assert checked.code == 0, checked.said
