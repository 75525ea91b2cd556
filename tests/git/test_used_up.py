"""What one pusher or reader may use up of the Git host: its disk, memory, time and sessions have an end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from keyrack.core.git import bounds
from tests.git.people import Ended, Person, Site, start_host
from tests.git.test_rights import clone, push
from tests.git.test_transfers import ALICE, LONG, MEGABYTE, THIN, bare, served_from, slowly
from tests.login.private_sshd import strict_folder
from tests.services import Service
from tests.waiting import wait_until


def bound(site: Site, **settings: int) -> None:
    """Other bounds from here on."""
    for name, value in settings.items():
        object.__setattr__(site.service.instance.settings, name, value)


@pytest.fixture
def alice(site: Site) -> Person:
    """A developer of acme/site, in which something is already."""
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    assert push(alice, "acme/site").code == 0
    nothing_runs(site)
    return alice


def nothing_runs(site: Site) -> None:
    """Wait for this: the host counts an operation for a moment after its client has ended, and longer beside load."""
    wait_until(lambda: site.host.running == 0, "what came before to be over")


def cloned(alice: Person) -> Path:
    """A clone of acme/site."""
    ended, folder = clone(alice, "acme/site")
    assert ended.code == 0, ended.said
    return folder


def fed(alice: Person, folder: Path, stream: bytes) -> None:
    """Make what a stream of `git fast-import` says, without a file for each."""
    words = ["git", "fast-import", "--quiet", "--force", "--max-pack-size=0"]
    subprocess.run(words, cwd=folder, env=alice.environment(), input=stream, check=True, timeout=120)


def pushed(alice: Person, folder: Path, *refs: str) -> Ended:
    """Push these."""
    return alice.git("push", "-q", "origin", *refs, where=folder)


def many_files(count: int) -> bytes:
    """A stream of one commit with this many different small files."""
    head = b"commit refs/heads/many\ncommitter a <a@example.org> 1 +0000\ndata 1\nm\n"
    files = b"".join(b"M 100644 inline f/%d\ndata %d\n%d\n" % (n, len(str(n)), n) for n in range(count))
    return head + files + b"\n"


def test_many_small_files_stay_the_one_file_that_they_came_as(site: Site, alice: Person) -> None:
    folder = cloned(alice)
    fed(alice, folder, many_files(90))
    repository = bare(site, site.repository("acme/site", alice="developer"))
    assert pushed(alice, folder, "many").code == 0
    loose = list((repository / "objects").glob("??/*"))
    assert not loose, "each small object would take a block of the disk and an inode"


def test_a_full_repository_takes_deletions_alone(site: Site, alice: Person) -> None:
    folder = cloned(alice)
    alice.commit(folder, "one", os.urandom(2 * MEGABYTE))
    assert pushed(alice, folder, "HEAD:one").code == 0
    bound(site, git_max_repository_bytes=MEGABYTE)
    alice.commit(folder, "two")
    for ref in ("HEAD:two", "HEAD~1:refs/heads/again"):
        ended = pushed(alice, folder, ref)
        assert ended.code != 0
        assert "The repository is full" in ended.said, ended.said
    # However long it takes: what makes a repository larger is stopped, and a deletion does not.
    ended = slowly(alice, "late", "push", "-q", "origin", ":one", where=folder)
    assert ended.code == 0, ended.said
    listed = alice.git("ls-remote", alice.url("acme/site")).said
    assert "again" not in listed
    assert "one" not in listed
    assert clone(alice, "acme/site")[0].code == 0


def test_pushes_that_together_fill_a_repository_are_stopped(site: Site, alice: Person) -> None:
    repository = bare(site, site.repository("acme/site", alice="developer"))
    bound(site, git_max_repository_bytes=5 * MEGABYTE)
    folders = [cloned(alice) for _ in range(3)]
    for number, folder in enumerate(folders):
        alice.commit(folder, f"part-{number}", os.urandom(3 * MEGABYTE))
    with ThreadPoolExecutor(3) as pool:
        under_way = [
            pool.submit(slowly, alice, "up", "push", "-q", "origin", f"HEAD:part-{number}", where=folder, piece=THIN)
            for number, folder in enumerate(folders)
        ]
        ended = [each.result() for each in under_way]
    assert any("The repository is full" in each.said for each in ended), [each.said for each in ended]
    wait_until(lambda: not served_from(repository), "git to be gone")
    assert not list((repository / "objects").glob("tmp_objdir-*"))
    assert bounds.measure(repository).bytes < 8 * MEGABYTE
    assert clone(alice, "acme/site")[0].code == 0


def test_room_on_the_disk_is_kept(site: Site, alice: Person) -> None:
    folder = cloned(alice)
    alice.commit(folder, "one", os.urandom(8 * MEGABYTE))
    nothing_runs(site)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(slowly, alice, "up", "push", "-q", "origin", "HEAD:one", where=folder)
        wait_until(lambda: site.host.running == 1, "the push to begin")
        bound(site, git_keep_free_bytes=1 << 60)
        assert "The disk of this Git host is nearly full" in under_way.result().said
    ended = pushed(alice, folder, "HEAD:one")
    assert ended.code != 0
    assert "The disk of this Git host is nearly full" in ended.said, ended.said
    assert clone(alice, "acme/site")[0].code == 0
    bound(site, git_keep_free_bytes=0)
    assert pushed(alice, folder, "HEAD:one").code == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a disk that is full")
def test_a_full_disk_harms_no_repository(site: Site, alice: Person) -> None:
    bound(site, git_keep_free_bytes=0)
    repository = bare(site, site.repository("acme/site", alice="developer"))
    folder = cloned(alice)
    alice.commit(folder, "one", os.urandom(8 * MEGABYTE))
    disk = ["mount", "-t", "tmpfs", "-o", "size=3m,mode=755", "tmpfs", str(repository / "objects")]
    before = subprocess.run(["cp", "-a", str(repository / "objects"), str(site.folder / "kept")], check=True)
    assert before.returncode == 0
    if subprocess.run(disk, check=False, capture_output=True).returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["cp", "-a", f"{site.folder}/kept/.", str(repository / "objects")], check=True)
        ended = pushed(alice, folder, "HEAD:one")
        assert ended.code != 0
        assert "No space left on device" in ended.said, ended.said
        assert not list((repository / "objects").glob("tmp_objdir-*"))
        checked = subprocess.run(["git", "fsck", "--full"], cwd=repository, capture_output=True, check=False)
        assert checked.returncode == 0, checked.stderr
        assert clone(alice, "acme/site")[0].code == 0
        alice.git("reset", "-q", "--hard", "HEAD~1", where=folder)
        alice.commit(folder, "small")
        assert pushed(alice, folder, "HEAD:small").code == 0
    finally:
        wait_until(lambda: not served_from(repository), "git to be gone")
        subprocess.run(["umount", str(repository / "objects")], check=True)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_transfer_has_an_end(site: Site, alice: Person, direction: str) -> None:
    folder = cloned(alice)
    alice.commit(folder, "large", os.urandom(LONG))
    words = ("push", "-q", "origin", "HEAD:late")
    if direction == "down":
        assert pushed(alice, folder, "HEAD:main").code == 0
        words = ("clone", "-q", alice.url("acme/site"), str(alice.folder / "slow"))
    bound(site, git_max_transfer_seconds=2)
    ended = slowly(alice, direction, *words, where=folder)
    assert ended.code != 0
    assert "the transfer was stopped: it took 2 seconds" in ended.said, ended.said
    assert any("Stopped alice in the middle" in entry[3] for entry in site.events())


@pytest.fixture
def impatient_site(team: Service, tmp_path: Path) -> Iterator[Site]:
    """A Git host that soon lets go of a client that does nothing."""
    object.__setattr__(team.instance.settings, "git_max_idle_seconds", 4)
    (tmp_path / "people").mkdir()
    with strict_folder() as folder:
        host = start_host(team, folder)
        try:
            yield Site(team, host, tmp_path / "people")
        finally:
            host.stop()


@pytest.mark.parametrize("verb", ["upload", "receive"])
@pytest.mark.parametrize("sent", [b"", b"0014command=ls-refs\n"])
def test_an_idle_client_is_disconnected(impatient_site: Site, verb: str, sent: bytes) -> None:
    site = impatient_site
    if "ChannelTimeout" not in site.host.server.config.read_text():
        pytest.skip("this sshd does not know when a client is idle")
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    words = [*alice.ssh_words(), f"{site.host.username}@127.0.0.1", f"git-{verb}-pack 'acme/site.git'"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdin is not None
        client.stdin.write(sent)
        client.stdin.flush()
        assert client.stdout is not None
        assert client.stdout.read(4), "the operation has begun"
        wait_until(lambda: site.host.running == 0, "the operation to end")
        assert client.wait(60) != 0
    with subprocess.Popen([*words[:-2], "-N", words[-2]], stderr=subprocess.PIPE) as idle:
        assert idle.wait(60) != 0, "a connection for nothing is ended too"


def test_sessions_are_counted(site: Site, alice: Person) -> None:
    site.repository("acme/site", alice="developer", bob="viewer")
    other = site.person("alice", token=ALICE)
    bob = site.person("bob", token="token-of-bob")
    bound(site, git_max_sessions_each=2)
    waiting = [waits(person) for person in (alice, other)]
    try:
        wait_until(lambda: site.host.running == 2, "both to begin")
        ended = alice.git("ls-remote", alice.url("acme/site"))
        assert ended.code != 0
        assert "You have 2 Git operations under way" in ended.said, ended.said
        assert bob.git("ls-remote", bob.url("acme/site")).code == 0
        wait_until(lambda: site.host.running == 2, "bob's to be over")
        bound(site, git_max_sessions=2)
        assert "Git is very busy" in bob.git("ls-remote", bob.url("acme/site")).said
    finally:
        for client in waiting:
            client.communicate()
    wait_until(lambda: site.host.running == 0, "both to end")
    assert alice.git("ls-remote", alice.url("acme/site")).code == 0


def waits(person: Person) -> subprocess.Popen[bytes]:
    """A fetch that does not go on."""
    words = [*person.ssh_words(), f"{person.site.host.username}@127.0.0.1", "git-upload-pack 'acme/site.git'"]
    quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(words, **quiet)


def too_many(folder: Path) -> list[str]:
    """More references than one push may name."""
    head = git(folder, "rev-parse", "HEAD")
    lines = "".join(f"create refs/heads/r{n} {head}\n" for n in range(bounds.MAX_REFS_PER_PUSH + 1))
    subprocess.run(["git", "update-ref", "--stdin"], input=lines.encode(), cwd=folder, check=True)
    return ["refs/heads/r*:refs/heads/r*"]


def too_long(folder: Path) -> list[str]:
    """A name of 4,000 characters, in pieces that a file system takes."""
    return [f"HEAD:refs/heads/{'/'.join(['n' * 99] * 38)}"]


def git(folder: Path, *words: str) -> str:
    """What git says."""
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, check=True).stdout.decode().strip()


@pytest.mark.parametrize(("make", "words"), [(too_many, "push them in parts"), (too_long, "at most 255 characters")])
def test_references_are_bounded(site: Site, alice: Person, make: Callable[[Path], list[str]], words: str) -> None:
    folder = cloned(alice)
    ended = pushed(alice, folder, *make(folder))
    assert ended.code != 0
    assert words in ended.said, ended.said[-500:]
    assert alice.git("ls-remote", alice.url("acme/site")).said.count("refs/heads/") == 1
    assert pushed(alice, folder, "HEAD:fine").code == 0


def test_bases_that_a_push_names_do_not_fill_the_disk(
    site: Site, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small push of changes to large files has git write all these files once more."""
    monkeypatch.setattr(bounds, "ROOM_FOR_BASES", 0)
    repository = bare(site, site.repository("acme/site", alice="developer"))
    folder = cloned(alice)
    for number in range(3):
        alice.commit(folder, f"large-{number}", os.urandom(2 * MEGABYTE))
    assert pushed(alice, folder, "HEAD:main").code == 0
    bound(site, git_max_push_bytes=MEGABYTE)
    for number in range(3):
        with (folder / f"large-{number}").open("ab") as file:
            file.write(b"more")
    alice.git("commit", "-q", "-a", "-m", "more", where=folder)
    before = bounds.measure(repository).bytes
    ended = pushed(alice, folder, "HEAD:main")
    assert ended.code != 0
    assert "File too large" in ended.said, ended.said
    assert bounds.measure(repository).bytes < before + MEGABYTE
    assert clone(alice, "acme/site")[0].code == 0


def test_computing_and_memory_have_an_end(site: Site, alice: Person) -> None:
    folder = cloned(alice)
    alice.commit(folder, "zeros", b"\0" * 40 * MEGABYTE)
    bound(site, git_max_memory_bytes=25 * MEGABYTE, git_max_cpu_seconds=77)
    ended = pushed(alice, folder, "HEAD:bomb")
    assert ended.code != 0
    assert "ut of memory" in ended.said, ended.said
    nothing_runs(site)
    client = waits(alice)
    try:
        wait_until(lambda: site.host.running == 1, "the fetch to begin")
        repository = bare(site, site.repository("acme/site", alice="developer"))
        wait_until(lambda: served_from(repository), "git to run")
        limits = Path(f"/proc/{served_from(repository)[0]}/limits").read_text().split("\n")
        assert any(line.split() == ["Max", "cpu", "time", "77", "77", "seconds"] for line in limits), limits
    finally:
        client.communicate()
    bound(site, git_max_memory_bytes=2000 * MEGABYTE)
    assert "bomb" not in alice.git("ls-remote", alice.url("acme/site")).said
    assert pushed(alice, folder, "HEAD:fine").code == 0


FOR_EVER = ["sparse:oid=main:sparse", "tree:50", "combine:sparse:oid=main:sparse+tree:1"]


@pytest.mark.parametrize("filtered", FOR_EVER)
def test_filters_that_walk_for_ever_are_not_offered(site: Site, alice: Person, filtered: str) -> None:
    """Thirty trees, each of which holds the one below ten times, have more paths than anybody can walk."""
    folder = cloned(alice)
    tree = git(folder, "rev-parse", "HEAD^{tree}")
    for _ in range(30):
        lines = "".join(f"040000 tree {tree}\tt{n}\n" for n in range(10))
        made = subprocess.run(["git", "mktree"], input=lines.encode(), cwd=folder, capture_output=True, check=True)
        tree = made.stdout.decode().strip()
    rule = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], input=b"/t1/\n!/t1/t2/\n", cwd=folder, capture_output=True, check=True
    )
    lines = f"100644 blob {rule.stdout.decode().strip()}\tsparse\n040000 tree {tree}\tt\n"
    made = subprocess.run(["git", "mktree"], input=lines.encode(), cwd=folder, capture_output=True, check=True)
    commit = git(
        folder,
        "-c",
        "user.name=a",
        "-c",
        "user.email=a@example.org",
        "commit-tree",
        made.stdout.decode().strip(),
        "-m",
        "x",
    )
    assert pushed(alice, folder, f"+{commit}:refs/heads/main").code == 0
    place = str(alice.folder / "partial")
    ended = alice.git("clone", "-q", "--no-checkout", f"--filter={filtered}", alice.url("acme/site"), place)
    assert ended.code != 0
    assert "not supported" in ended.said or "max depth" in ended.said, ended.said
    for fine in ("blob:none", "blob:limit=1k", "tree:0"):
        ended = alice.git("clone", "-q", "--no-checkout", f"--filter={fine}", alice.url("acme/site"), f"{place}-{fine}")
        assert ended.code == 0, ended.said


def test_the_files_of_a_killed_push_are_removed(site: Site, alice: Person) -> None:
    repository = bare(site, site.repository("acme/site", alice="developer"))
    folder = cloned(alice)
    alice.commit(folder, "large", os.urandom(LONG))
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(slowly, alice, "up", "push", "-q", "origin", "HEAD:cut", where=folder)
        wait_until(lambda: list(repository.glob("objects/tmp_objdir-*/pack/tmp_pack*")), "the push to be under way")
        # All at once: of a receive-pack that sees its index-pack end, nothing is left.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in served_from(repository):
                os.kill(pid, number)
        assert under_way.result().code != 0
    left = list(repository.glob("objects/tmp_objdir-*"))
    assert left, "nobody is there to remove it"
    lock = repository / "refs" / "heads" / "main.lock"
    lock.touch()
    ended = pushed(alice, folder, "HEAD~1:refs/heads/small")
    assert ended.code == 0
    assert left[0].exists(), "as long as a push may last, it may be somebody's"
    long_ago = time.time() - bounds.abandoned_after_seconds(site.service.instance.settings) - 1
    for path in (lock, left[0], *left[0].rglob("*")):
        os.utime(path, (long_ago, long_ago))
    assert pushed(alice, folder, "HEAD~1:refs/heads/smaller").code == 0
    wait_until(lambda: not left[0].exists() and not lock.exists(), "the upkeep")
    assert pushed(alice, folder, "HEAD:main").code == 0
