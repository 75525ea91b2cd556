"""Links, pipes and folders that somebody put where the agent writes: nothing outside is touched, and it says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keyrack.agent.keys.key_files import KeyFiles
from keyrack.agent.system.folder import FolderProblem
from keyrack.protocol.host_document import AuthorizedKey
from keyrack.ssh import authorized_keys
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document, public_key
from tests.agent.small_service import SmallService
from tests.agent.test_faults import LONG, Revisions
from tests.waiting import wait_until

CANARY = b"a file of somebody else\n"


@pytest.fixture
def canary(folder: Path) -> Path:
    """A file outside the agent's folders."""
    path = folder / "canary"
    path.write_bytes(CANARY)
    return path


def put_in_the_way(kind: str, place: Path, canary: Path) -> None:
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
    service.publish(1, service.signer.signed(document(1, {"deploy": [AuthorizedKey(key)]}, [public_key()])))
    follower = host.follower()
    follower.step(0)
    follower.step(0)
    if (host.keys / "deploy").is_file():
        assert (host.keys / "deploy").read_bytes() == authorized_keys.render([key])
    return follower.wrong


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "dangling", "pipe"])
@pytest.mark.parametrize("place", ["keys/deploy", "keys/stranger", "keys/.keyrack-0123456789abcdef", "revoked_keys"])
def test_a_link_or_pipe_in_the_place_of_a_file_is_replaced_and_not_followed(
    host: EnrolledHost, service: SmallService, canary: Path, kind: str, place: str
) -> None:
    path = host.keys.parent / place
    path.unlink(missing_ok=True)
    put_in_the_way(kind, path, canary)
    assert obeyed(host, service) == ()
    assert canary.read_bytes() == CANARY
    assert not canary.with_name("not-there").exists()
    assert os.listdir(host.keys) == ["deploy"]
    assert host.revoked_keys.is_file()
    assert not host.revoked_keys.is_symlink()
    assert host.revoked_keys.stat().st_nlink == 1


@pytest.mark.parametrize("place", ["keys/deploy", "keys/stranger", "revoked_keys"])
def test_a_folder_in_the_place_of_a_file_is_reported_and_the_other_files_are_written(
    host: EnrolledHost, service: SmallService, canary: Path, place: str
) -> None:
    path = host.keys.parent / place
    path.unlink(missing_ok=True)
    put_in_the_way("folder", path, canary)
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


def test_keys_are_not_kept_in_tmp(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    # Without the advice to take the right to write to /tmp from everybody.
    with pytest.raises(FolderProblem, match=f"{shared}, as is meant for it; take a folder that lies elsewhere"):
        KeyFiles.open(str(shared / "keys"), str(shared / "revoked_keys"), create=True)
    shared.chmod(0o777)
    with pytest.raises(FolderProblem, match="chmod go-w"):
        KeyFiles.open(str(shared / "keys"), str(shared / "revoked_keys"), create=True)


# Tries, for as long as it runs, to put something in the agent's way or to get at what it writes.
ATTACK = """
import os, random, sys
account, canary, *places = sys.argv[1:]
if account:
    os.setgroups([])
    os.setgid(int(account))
    os.setuid(int(account))
done = 0
while True:
    place = random.choice(places)
    name = random.choice(["deploy", "root", "revoked_keys", "accepted.json", f".keyrack-{random.getrandbits(64):016x}"])
    path = os.path.join(place, name)
    try:
        random.choice([
            lambda: os.symlink(canary, path),
            lambda: os.link(canary, path),
            lambda: os.mkfifo(path),
            lambda: os.rename(path, canary),
            lambda: os.rename(place, place + ".moved"),
            lambda: os.unlink(path),
            lambda: os.chmod(path, 0o666),
            lambda: open(path, "ab").write(b"x"),
        ])()
        done += 1
    except OSError:
        pass
    for unfinished in os.listdir(place) if os.access(place, os.R_OK) else ():
        if unfinished.startswith(".keyrack-"):
            try:
                open(os.path.join(place, unfinished), "ab").write(b"x")
            except OSError:
                pass
"""

# The same for somebody who may write in the folder, as nobody but the agent's own account can: puts a link there, and
# takes it away.
# What such a one writes through a link of its own is its own doing, so it does not write.
_OWN_DOING = ("os.rename", "os.chmod", "open(path")
STRONGER = "\n".join(
    line
    for line in ATTACK.partition("    for unfinished")[0].split("\n")
    if not any(call in line for call in _OWN_DOING)
)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start an attacker with another account")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("attacker", ["another account", "the agent's own account"])
def test_an_attacker_at_work_while_the_agent_writes(
    host: EnrolledHost, service: SmallService, canary: Path, attacker: str
) -> None:
    revisions = Revisions(service)
    revisions.publish()
    canary.chmod(0o644)
    files = len(revisions.latest)
    places = [str(host.keys), str(host.revoked_keys.parent), str(host.state)]
    own = attacker != "another account"
    account = "" if own else "65534"
    attack = [
        sys.executable,
        "-I",
        "-c",
        STRONGER if own else ATTACK,
        account,
        str(canary),
        *(places[:1] if own else places),
    ]
    agent = subprocess.Popen(host.command("run"), stderr=subprocess.DEVNULL)
    service.wait_for_report("applied", 1)
    enemy = subprocess.Popen(attack)
    try:
        for _ in range((10_000 if LONG else 200) // files):
            revisions.publish()
            wait_until(lambda: _holds(host, revisions.latest), "the files of a revision")
        assert enemy.poll() is None
        assert canary.read_bytes() == CANARY
        assert (canary.stat().st_mode & 0o777, canary.stat().st_uid) == (0o644, 0)
    finally:
        enemy.kill()
        enemy.wait()
        agent.kill()
        agent.wait()
    assert host.agent("run", "--once").returncode == 0
    assert host.files() == revisions.latest
    assert canary.read_bytes() == CANARY


def _holds(host: EnrolledHost, latest: dict[str, bytes]) -> bool:
    """Whether the files are these; under attack a moment is enough, and only the revoked keys are out of reach."""
    try:
        return host.revoked_keys.read_bytes() == latest["revoked"]
    except OSError:
        return False
