"""Transfers with the real git: protocol 2, shallow and partial clones, large pushes, and cutting what must end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyrack.core.git import repositories, storage
from keyrack.core.people import actors, users
from keyrack.store.git.repositories import Repository
from tests.git.people import Ended, Person, Site, start_host
from tests.git.test_rights import clone, push
from tests.login.private_sshd import strict_folder
from tests.services import Service
from tests.waiting import wait_until

ALICE = "token-of-alice"
MEGABYTE = 1_000_000
LONG = 8 * MEGABYTE
"""Over the thinnest line this lasts most of a minute, of which ssh takes in two megabytes at once."""
THINNEST, THIN = 8_192, 32_768
SLOW = Path(__file__).parent / "slow_ssh.py"


def fill(site: Site, alice: Person, path: str, size: int) -> Path:
    """Push a file that does not compress; the clone it came from."""
    ended, folder = clone(alice, path)
    assert ended.code == 0, ended.said
    alice.commit(folder, "large", os.urandom(size))
    ended = alice.git("push", "-q", "origin", "HEAD:main", where=folder)
    assert ended.code == 0, ended.said
    return folder


def slowly(person: Person, direction: str, *arguments: str, where: Path | None = None, piece: int = THINNEST) -> Ended:
    """Run git over a thin line, on which a piece of so many bytes passes twenty times a second."""
    environment = person.environment()
    environment["GIT_SSH_COMMAND"] = f"{sys.executable} {SLOW} {direction} {piece} {environment['GIT_SSH_COMMAND']}"
    environment["GIT_SSH_VARIANT"] = "ssh"
    ended = subprocess.run(
        ["git", *arguments], env=environment, cwd=where or person.folder, capture_output=True, timeout=240, check=False
    )
    return Ended(ended.returncode, (ended.stdout + ended.stderr).decode("utf-8", "replace"), ended.stdout)


def bare(site: Site, repository: Repository) -> Path:
    """Where a repository lies."""
    return storage.folder_of(site.host.repositories, repository)


def test_a_large_push_and_its_clone(site: Site) -> None:
    repository = site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    folder = fill(site, alice, "acme/site", 24 * MEGABYTE)
    ended, again = clone(alice, "acme/site")
    assert ended.code == 0, ended.said
    assert (again / "large").read_bytes() == (folder / "large").read_bytes()
    checked = subprocess.run(["git", "fsck", "--full"], cwd=bare(site, repository), capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_protocol_two_shallow_and_partial_clones(site: Site) -> None:
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    for _ in range(3):
        assert push(alice, "acme/site").code == 0
    traced = alice.git("-c", "protocol.version=2", "ls-remote", alice.url("acme/site"))
    assert traced.code == 0
    environment = {**alice.environment(), "GIT_TRACE_PACKET": "1"}
    ended = subprocess.run(
        ["git", "ls-remote", alice.url("acme/site")], env=environment, capture_output=True, check=True, timeout=120
    )
    assert b"version 2" in ended.stderr
    assert b"filter" in ended.stderr
    shallow = alice.folder / "shallow"
    assert alice.git("clone", "-q", "--depth=1", alice.url("acme/site"), str(shallow)).code == 0
    assert alice.git("rev-list", "--count", "HEAD", where=shallow).said.strip() == "1"
    assert alice.git("fetch", "-q", "--unshallow", where=shallow).code == 0
    assert alice.git("rev-list", "--count", "HEAD", where=shallow).said.strip() == "3"
    partial = alice.folder / "partial"
    arguments = ("clone", "-q", "--filter=blob:none", "--no-checkout", alice.url("acme/site"), str(partial))
    assert alice.git(*arguments).code == 0
    missing = alice.git("rev-list", "--objects", "--missing=print", "HEAD", where=partial)
    assert "?" in missing.said
    assert alice.git("checkout", "-q", "HEAD", where=partial).code == 0
    assert list(partial.glob("file-*"))


def test_old_protocols_are_served_too(site: Site) -> None:
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    assert push(alice, "acme/site").code == 0
    for version in ("0", "1"):
        ended = alice.git("-c", f"protocol.version={version}", "ls-remote", alice.url("acme/site"))
        assert ended.code == 0
        assert "refs/heads/main" in ended.said


def lose_key(site: Site, alice: Person) -> None:
    """Delete the key through the API."""
    site.unregister(ALICE, alice.key_id)


def lose_membership(site: Site, alice: Person) -> None:
    """Take the role in the repository away."""
    site.repository("acme/site")


def lose_account(site: Site, alice: Person) -> None:
    """Disable the user."""
    users.change(site.service.instance, actors.system_actor(1), site.user_id("alice"), enabled=False)


def lose_repository(site: Site, alice: Person) -> None:
    """Delete the repository."""
    repository = site.repository("acme/site", alice="developer")
    repositories.delete(site.service.instance, actors.system_actor(1), repository.id)


@pytest.mark.parametrize("lose", [lose_key, lose_membership, lose_account, lose_repository])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_running_transfer_is_cut(site: Site, lose: Callable[[Site, Person], None], direction: str) -> None:
    """The thin line needs most of a minute; the transfer ends because it is cut, and nothing of it stays."""
    repository = site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    folder = fill(site, alice, "acme/site", LONG if direction == "down" else 1000)
    if direction == "up":
        alice.commit(folder, "larger", os.urandom(LONG))
    words = (
        ("clone", "-q", alice.url("acme/site"), str(alice.folder / "slow"))
        if direction == "down"
        else ("push", "-q", "origin", "HEAD:topic")
    )
    wait_until(lambda: site.host.running == 0, "what filled it to be over")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(slowly, alice, direction, *words, where=folder)
        wait_until(lambda: site.host.running == 1, "the transfer to begin")
        lose(site, alice)
        wait_until(lambda: site.host.running == 0, "the transfer to be stopped")
        ended = under_way.result()
    assert ended.code != 0
    assert "the transfer was stopped" in ended.said, ended.said
    wait_until(lambda: not served_from(bare(site, repository)), "git to be gone")
    assert not (bare(site, repository) / "refs" / "heads" / "topic").exists()
    assert any("Stopped alice in the middle" in entry[3] for entry in site.events())


def served_from(folder: Path) -> list[int]:
    """The processes of git that work in a repository."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_another_member_goes_on_while_one_is_cut(site: Site) -> None:
    site.repository("acme/site", alice="developer", bob="viewer")
    alice, bob = site.person("alice", token=ALICE), site.person("bob", token="token-of-bob")
    fill(site, alice, "acme/site", 6 * MEGABYTE)
    with ThreadPoolExecutor(2) as pool:
        theirs, hers = (
            pool.submit(slowly, one, "down", "clone", "-q", one.url("acme/site"), str(one.folder / "slow"), piece=THIN)
            for one in (bob, alice)
        )
        wait_until(lambda: site.host.running == 2, "both transfers to begin")
        site.unregister(ALICE, alice.key_id)
        assert hers.result().code != 0
        assert theirs.result().code == 0, theirs.result().said


def test_first_uses_at_once_make_one_repository(site: Site) -> None:
    site.repository("acme/new", alice="developer")
    alice = site.person("alice", token=ALICE)
    with ThreadPoolExecutor(6) as pool:
        codes = [ended.code for ended in pool.map(lambda _: alice.git("ls-remote", alice.url("acme/new")), range(6))]
    assert codes == [0] * 6
    assert len(list(site.host.repositories.glob("*/*"))) == 1


@pytest.fixture
def python_site(team: Service, tmp_path: Path) -> Iterator[Site]:
    """A Git host on a machine without a C compiler."""
    folder_of_people = tmp_path / "people"
    folder_of_people.mkdir()
    with strict_folder() as folder:
        host = start_host(team, folder, compiler="")
        try:
            yield Site(team, host, folder_of_people)
        finally:
            host.stop()


def test_git_works_with_the_python_programs_where_there_is_no_compiler(python_site: Site) -> None:
    site = python_site
    repository = site.repository("acme/site", alice="developer")
    alice, stranger = site.person("alice", token=ALICE), site.person("stranger")
    assert push(alice, "acme/site").code == 0
    wait_until(
        lambda: any("alice pushed to acme/site: main new at" in entry[3] for entry in site.events()), "its event"
    )
    assert "Hello alice!" in alice.ssh().said
    assert "Only git clone, fetch and push" in alice.ssh("id").said
    assert "Permission denied (publickey)" in stranger.ssh().said
    fill(site, alice, "acme/site", LONG)
    with ThreadPoolExecutor(1) as pool:
        slow = alice.folder / "slow"
        under_way = pool.submit(slowly, alice, "down", "clone", "-q", alice.url("acme/site"), str(slow))
        wait_until(lambda: site.host.running == 1, "the transfer to begin")
        site.unregister(ALICE, alice.key_id)
        ended = under_way.result()
    assert ended.code != 0
    assert "the transfer was stopped" in ended.said
    wait_until(lambda: not served_from(bare(site, repository)), "git to be gone")
