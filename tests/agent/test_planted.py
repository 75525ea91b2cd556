"""Links, pipes and folders that somebody put where the agent writes: nothing outside is touched, and it says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from keyrack.agent.folder import FolderProblem
from keyrack.agent.key_files import KeyFiles
from keyrack.ssh import authorized_keys
from keyrack.ssh.host_document import UserKey
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document, public_key
from tests.agent.small_service import SmallService

CANARY = b"a file of somebody else\n"


@pytest.fixture
def canary(folder: Path) -> Path:
    """A file outside the agent's folders."""
    path = folder / "canary"
    path.write_bytes(CANARY)
    return path


def plant(kind: str, place: Path, canary: Path) -> None:
    """Put something in the way."""
    if kind == "symlink":
        place.symlink_to(canary)
    elif kind == "hardlink":
        os.link(canary, place)
    elif kind == "dangling":
        place.symlink_to(canary.with_name("not-there"))
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()


def obeyed(host: EnrolledHost, service: SmallService) -> tuple[str, ...]:
    """Publish one key for deploy, let the agent do what it can, and answer what it says is wrong."""
    key = public_key()
    service.publish(1, service.signer.signed(document(1, {"deploy": [UserKey(key)]}, [public_key()])))
    follower = host.follower()
    follower.step(0)
    follower.step(0)
    if (host.keys / "deploy").is_file():
        assert (host.keys / "deploy").read_bytes() == authorized_keys.render([key])
    return follower.wrong


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "dangling", "pipe"])
@pytest.mark.parametrize("place", ["keys/deploy", "keys/stranger", "keys/.keyrack-0123456789abcdef", "revoked_keys"])
def test_what_was_planted_is_replaced_not_followed(
    host: EnrolledHost, service: SmallService, canary: Path, kind: str, place: str
) -> None:
    path = host.keys.parent / place
    path.unlink(missing_ok=True)
    plant(kind, path, canary)
    assert obeyed(host, service) == ()
    assert canary.read_bytes() == CANARY
    assert not canary.with_name("not-there").exists()
    assert os.listdir(host.keys) == ["deploy"]
    assert host.revoked_keys.is_file()
    assert not host.revoked_keys.is_symlink()
    assert host.revoked_keys.stat().st_nlink == 1


@pytest.mark.parametrize("place", ["keys/deploy", "keys/stranger", "revoked_keys"])
def test_a_folder_in_the_way_is_told_and_all_else_is_done(
    host: EnrolledHost, service: SmallService, canary: Path, place: str
) -> None:
    path = host.keys.parent / place
    path.unlink(missing_ok=True)
    plant("folder", path, canary)
    wrong = obeyed(host, service)
    assert len(wrong) == 1
    assert str(path) in wrong[0]
    assert service.wait_for_report("failed")["revision"] == 0
    assert path.is_dir()
    others = {host.keys / "deploy", host.revoked_keys} - {path}
    assert all(other.is_file() for other in others)
    path.rmdir()
    host.follower().step(0)
    assert service.wait_for_report("applied", 1)


def test_the_agent_writes_in_no_folder_that_others_can_change(
    host: EnrolledHost, service: SmallService, canary: Path
) -> None:
    host.keys.chmod(0o777)
    wrong = obeyed(host, service)
    assert "other accounts may write" in wrong[0]
    assert os.listdir(host.keys) == []
    host.keys.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("place", ["ssh/keys", "ssh"])
def test_root_writes_in_no_folder_of_a_user(host: EnrolledHost, service: SmallService, place: str) -> None:
    os.chown(host.folder / place, 65534, 65534)
    wrong = obeyed(host, service)
    assert "belongs to account number 65534" in wrong[0]
    assert os.listdir(host.keys) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_link_to_a_folder_of_a_user_is_seen_through(host: EnrolledHost, service: SmallService, folder: Path) -> None:
    home = folder / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    host.keys.rmdir()
    host.keys.symlink_to(home)
    wrong = obeyed(host, service)
    assert "belongs to account number 65534" in wrong[0]
    assert os.listdir(home) == []


def test_folders_that_were_moved_away_are_made_again(host: EnrolledHost, service: SmallService) -> None:
    host.keys.parent.rename(host.folder / "elsewhere")
    assert obeyed(host, service) == ()
    assert os.listdir(host.keys) == ["deploy"]


def test_tmp_is_no_place_for_keys(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    with pytest.raises(FolderProblem, match="chmod go-w"):
        KeyFiles.open(str(shared / "keys"), str(shared / "revoked_keys"), create=True)
