"""What is pushed is checked and bounded before it is taken in: nothing harms whoever clones it, or fills the host."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from keyrack.core.git import storage
from tests.git.people import Ended, Person, Site
from tests.git.test_rights import clone, push

ALICE = "token-of-alice"
MEGABYTE = 1_000_000


def tree(folder: Path, *entries: str) -> str:
    """Make a tree that git itself would not make of files; entries as `git mktree` reads them."""
    made = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"],
        input=b"".join(_raw(entry) for entry in entries),
        cwd=folder,
        capture_output=True,
        check=True,
    )
    return made.stdout.decode().strip()


def _raw(entry: str) -> bytes:
    mode, name, object_id = entry.split("\t")
    return f"{mode} {name}".encode() + b"\0" + bytes.fromhex(object_id)


def blob(folder: Path, text: str) -> str:
    """Write a blob."""
    made = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], input=text.encode(), cwd=folder, capture_output=True, check=True
    )
    return made.stdout.decode().strip()


def git_folder(folder: Path) -> str:
    inner = tree(folder, f"100644\tconfig\t{blob(folder, '[core]')}")
    return tree(folder, f"40000\t.GIT\t{inner}")


def hfs_folder(folder: Path) -> str:
    inner = tree(folder, f"100644\tconfig\t{blob(folder, '[core]')}")
    return tree(folder, f"40000\t.g\u200cit\t{inner}")


def module_options(folder: Path) -> str:
    text = '[submodule "x"]\n\tpath = x\n\turl = -u./payload\n'
    return tree(folder, f"100644\t.gitmodules\t{blob(folder, text)}")


def module_outside(folder: Path) -> str:
    text = '[submodule "../../x"]\n\tpath = x\n\turl = https://example.org/x\n'
    return tree(folder, f"100644\t.gitmodules\t{blob(folder, text)}")


def push_tree(person: Person, folder: Path, made: str, branch: str = "evil") -> Ended:
    """Commit a tree and push it."""
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    commit = person.git(*who, "commit-tree", made, "-m", "x", where=folder)
    assert commit.code == 0, commit.said
    return person.git("push", "-q", "origin", f"{commit.said.strip()}:refs/heads/{branch}", where=folder)


@pytest.mark.parametrize("make", [git_folder, hfs_folder, module_options, module_outside])
def test_a_push_that_would_harm_those_who_clone_it_is_refused(site: Site, make: Callable[[Path], str]) -> None:
    repository = site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    assert push(alice, "acme/site").code == 0
    # A repository from before, whose own settings ask for no checks.
    folder = storage.folder_of(site.host.repositories, repository)
    with (folder / "config").open("a") as file:
        file.write("[receive]\n\tfsckObjects = false\n[transfer]\n\tfsckObjects = false\n")
    ended, copy = clone(alice, "acme/site")
    assert ended.code == 0
    ended = push_tree(alice, copy, make(copy))
    assert ended.code != 0
    assert "fsck error" in ended.said, ended.said
    listed = alice.git("ls-remote", alice.url("acme/site"))
    assert "evil" not in listed.said
    assert push(alice, "acme/site").code == 0


def test_a_small_pack_of_a_large_file_is_refused(site: Site) -> None:
    settings = site.service.instance.settings
    object.__setattr__(settings, "git_max_file_bytes", 5 * MEGABYTE)
    object.__setattr__(settings, "git_max_push_bytes", 8 * MEGABYTE)
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    ended, folder = clone(alice, "acme/site")
    alice.commit(folder, "zeros", b"\0" * 15 * MEGABYTE)
    ended = alice.git("push", "-q", "origin", "HEAD:main", where=folder)
    assert ended.code != 0
    assert "over limit 5000000" in ended.said, ended.said
    # Many objects are kept packed, and take the other way through git.
    for number in range(120):
        (folder / f"file-{number}").write_text(str(number))
    alice.git("add", ".", where=folder)
    alice.commit(folder, "more")
    ended = alice.git("push", "-q", "origin", "HEAD:main", where=folder)
    assert "over limit 5000000" in ended.said, ended.said
    # A file below the bound, and more of them than one push may send.
    ended, folder = clone(alice, "acme/site")
    alice.commit(folder, "one", os.urandom(4_500_000))
    assert alice.git("push", "-q", "origin", "HEAD:main", where=folder).code == 0
    alice.commit(folder, "two", os.urandom(4_500_000))
    alice.commit(folder, "three", os.urandom(4_500_000))
    ended = alice.git("push", "-q", "origin", "HEAD:main", where=folder)
    assert ended.code != 0
    assert "maximum allowed size" in ended.said, ended.said
    ended, folder = clone(alice, "acme/site")
    assert ended.code == 0
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == ["one"]


def test_faults_of_old_history_are_let_through(site: Site) -> None:
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    _, folder = clone(alice, "acme/site")
    alice.commit(folder, "first")
    where = {"cwd": folder, "capture_output": True, "check": True}
    text = subprocess.run(["git", "cat-file", "commit", "HEAD"], **where).stdout  # type: ignore[call-overload]
    old = text.replace(b" +0000", b" +51800")
    assert old != text
    command = ["git", "hash-object", "-t", "commit", "-w", "--stdin", "--literally"]
    made = subprocess.run(command, input=old, **where).stdout.decode().strip()  # type: ignore[call-overload]
    ended = alice.git("push", "-q", "origin", f"{made}:refs/heads/main", where=folder)
    assert ended.code == 0, ended.said
