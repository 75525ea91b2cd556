"""A protected default branch is moved by nobody but who leads the repository, whatever else is pushed beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyrack.store.git import repositories as repository_rows
from keyrack.store.git.repositories import Repository
from tests.git.people import Person, Site, start_host
from tests.git.test_rights import ALICE, BOB, change, clone, push, refused
from tests.git.test_transfers import LONG, fill, slowly
from tests.login.private_sshd import strict_folder
from tests.services import Service
from tests.waiting import wait_until


def default_of(site: Site) -> str:
    found = site.service.instance.database.read(lambda connection: repository_rows.by_path(connection, "acme/site"))
    assert found is not None
    return found.default_branch


def head_of(person: Person, folder: Path, name: str) -> str:
    return person.git("rev-parse", name, where=folder).out.decode().strip()


def test_a_first_branch_by_somebody_who_may_not_push_it_does_not_become_the_default(site: Site) -> None:
    place = site.repository("acme/site", alice="developer", bob="admin")
    change(site, place, protect_default=True)
    alice, bob = site.person("alice", token=ALICE), site.person("bob", token=BOB)
    assert push(alice, "acme/site", branch="topic").code == 0
    assert default_of(site) == "main"
    assert push(bob, "acme/site").code == 0
    refused(push(alice, "acme/site"), "this branch is protected")
    assert list(clone(alice, "acme/site")[1].glob("file-*"))


def test_a_first_branch_by_a_lead_becomes_the_protected_default(site: Site) -> None:
    place = site.repository("acme/site", alice="developer", bob="admin")
    change(site, place, protect_default=True)
    alice, bob = site.person("alice", token=ALICE), site.person("bob", token=BOB)
    assert push(bob, "acme/site", branch="trunk").code == 0
    assert default_of(site) == "trunk"
    refused(push(alice, "acme/site", branch="trunk"), "this branch is protected")


def protect(site: Site, place: Repository) -> None:
    change(site, place, protect_default=True)


def demote(site: Site, place: Repository) -> None:
    """It was protected already, and who pushes led."""
    site.repository("acme/site", alice="developer")


@pytest.mark.parametrize(("role", "lose"), [("developer", protect), ("admin", demote)])
def test_a_push_under_way_obeys_a_branch_protected_meanwhile(
    site: Site, role: str, lose: Callable[[Site, Repository], None]
) -> None:
    place = site.repository("acme/site", alice=role)
    alice = site.person("alice", token=ALICE)
    folder = fill(site, alice, "acme/site", 1000)
    if lose is demote:
        protect(site, place)
    before = head_of(alice, folder, "origin/main")
    alice.commit(folder, "larger", os.urandom(LONG))
    wait_until(lambda: site.host.running == 0, "what filled it to be over")
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(slowly, alice, "up", "push", "-q", "origin", "HEAD:main", where=folder)
        wait_until(lambda: site.host.running == 1, "the push to begin")
        lose(site, place)
        refused(under_way.result(), "The default branch was protected meanwhile; push again.")
    assert before in alice.git("ls-remote", alice.url("acme/site"), "refs/heads/main").said
    refused(alice.git("push", "-q", "origin", "HEAD:main", where=folder), "this branch is protected")


def test_a_pushed_replace_reference_prevents_no_push(site: Site) -> None:
    site.repository("acme/site", alice="developer", bob="developer")
    alice, bob = site.person("alice", token=ALICE), site.person("bob", token=BOB)
    assert push(bob, "acme/site").code == 0
    _, folder = clone(alice, "acme/site")
    old = head_of(alice, folder, "HEAD")
    alice.commit(folder, "other")
    new = head_of(alice, folder, "HEAD")
    # Each stands for the other, which git follows for ever.
    words = (f"{new}:refs/replace/{old}", f"{old}:refs/replace/{new}", f"{new}:refs/heads/topic")
    assert alice.git("push", "-q", "origin", *words, where=folder).code == 0
    ended = push(bob, "acme/site")
    assert ended.code == 0, ended.said


@pytest.mark.parametrize("compiler", [None, ""])
def test_only_a_lead_pushes_a_tag_that_is_fetched_in_place_of_the_protected_branch(
    team: Service, tmp_path: Path, compiler: str | None
) -> None:
    with strict_folder() as folder:
        host = start_host(team, folder, compiler=compiler)
        try:
            _no_tag_in_place_of_a_protected_branch(Site(team, host, tmp_path))
        finally:
            host.stop()


def _no_tag_in_place_of_a_protected_branch(site: Site) -> None:
    place = site.repository("acme/site", alice="developer", bob="admin")
    alice, bob = site.person("alice", token=ALICE), site.person("bob", token=BOB)
    assert push(bob, "acme/site").code == 0
    _, folder = clone(alice, "acme/site")
    before = head_of(alice, folder, "HEAD")
    alice.commit(folder, "other")
    assert alice.git("push", "-q", "origin", "HEAD:refs/tags/main", where=folder).code == 0
    assert alice.git("fetch", "-q", "origin", "main", where=folder).code == 0
    assert head_of(alice, folder, "FETCH_HEAD") != before  # so git does, with any server
    change(site, place, protect_default=True)
    assert alice.git("push", "-q", "origin", ":refs/tags/main", where=folder).code == 0
    refused(alice.git("push", "-q", "origin", "HEAD:refs/tags/main", where=folder), "in place of the protected branch")
    words = ("HEAD:refs/tags/main", "HEAD:refs/heads/topic")
    refused(alice.git("push", "-q", "--atomic", "origin", *words, where=folder), "in place of the protected branch")
    assert not alice.git("ls-remote", alice.url("acme/site"), "topic", where=folder).out
    assert alice.git("fetch", "-q", "origin", "main", where=folder).code == 0
    assert head_of(alice, folder, "FETCH_HEAD") == before
    assert alice.git("push", "-q", "origin", "HEAD:refs/tags/main-1", "HEAD:refs/tags/mai", where=folder).code == 0
    assert push(bob, "acme/site").code == 0


@pytest.mark.parametrize("compiler", [None, ""])
def test_only_a_lead_pushes_a_reference_that_is_fetched_in_place_of_the_protected_branch(
    team: Service, tmp_path: Path, compiler: str | None
) -> None:
    with strict_folder() as folder:
        host = start_host(team, folder, compiler=compiler)
        try:
            site = Site(team, host, tmp_path)
            place = site.repository("acme/site", alice="developer", bob="admin")
            alice, bob = site.person("alice", token=ALICE), site.person("bob", token=BOB)
            assert push(bob, "acme/site", branch="release/1").code == 0
            change(site, place, protect_default=True)
            _, clone_of_alice = clone(alice, "acme/site")
            before = head_of(alice, clone_of_alice, "HEAD")
            alice.commit(clone_of_alice, "other")
            for ref in ("refs/release/1", "refs/tags/release/1"):
                ended = alice.git("push", "-q", "origin", f"HEAD:{ref}", where=clone_of_alice)
                refused(ended, "in place of the protected branch")
            assert alice.git("fetch", "-q", "origin", "release/1", where=clone_of_alice).code == 0
            assert head_of(alice, clone_of_alice, "FETCH_HEAD") == before
            assert alice.git("push", "-q", "origin", "HEAD:refs/release/10", where=clone_of_alice).code == 0
        finally:
            host.stop()
