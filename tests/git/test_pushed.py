"""What the log says of a push is what git did: which references changed, which were refused, and nothing more."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.git.people import Person, Site
from tests.git.test_rights import ALICE, change, clone
from tests.waiting import wait_until


def said(site: Site, number: int) -> list[tuple[str, str]]:
    """Outcome and words of what pushes left, once there are so many."""

    def found() -> list[tuple[str, str]]:
        return [(entry[2], entry[3]) for entry in site.events() if entry[1] == "git:push"]

    wait_until(lambda: len(found()) >= number, f"{number} events of pushes")
    return found()


def commit(alice: Person, folder: Path, name: str) -> str:
    alice.commit(folder, name)
    return alice.git("rev-parse", "HEAD", where=folder).out.decode().strip()[:7]


@pytest.fixture
def alice(site: Site) -> Person:
    site.repository("acme/site", alice="developer")
    return site.person("alice", token=ALICE)


def test_the_log_names_the_references_that_a_push_changed(site: Site, alice: Person) -> None:
    _, folder = clone(alice, "acme/site")
    first = commit(alice, folder, "one")
    assert alice.git("push", "-q", "origin", "HEAD:main", "HEAD:refs/tags/v1", where=folder).code == 0
    (_, begun), (outcome, pushed) = said(site, 2)
    assert "alice began to push to acme/site" in begun
    assert outcome == "done"
    assert f"alice pushed to acme/site: main new at {first}, tags/v1 new at {first} (with" in pushed
    assert alice.fingerprint in pushed
    second = commit(alice, folder, "two")
    assert alice.git("push", "-q", "origin", "HEAD:main", ":refs/tags/v1", where=folder).code == 0
    words = said(site, 4)[-1][1]
    assert f"main {first}..{second}" in words
    assert f"tags/v1 deleted, was {first}" in words
    # Nothing to push is no push.
    assert alice.git("push", "-q", "origin", "HEAD:main", where=folder).code == 0
    assert "ended without a change" in said(site, 6)[-1][1]
    names = [f"HEAD:topic-{number}" for number in range(12)]
    assert alice.git("push", "-q", "origin", *names, where=folder).code == 0
    assert "and 2 more" in said(site, 8)[-1][1]


def test_the_log_names_each_reference_differently(site: Site, alice: Person) -> None:
    _, folder = clone(alice, "acme/site")
    first = commit(alice, folder, "one")
    others = ("refs/heads/refs/main", "refs/heads/tags/v1", "refs/other/main")
    places = [f"HEAD:{ref}" for ref in ("refs/heads/main", "refs/tags/v1", *others)]
    assert alice.git("push", "-q", "origin", *places, where=folder).code == 0
    pushed = said(site, 2)[-1][1]
    for name in ("main", "tags/v1", *others):
        assert f" {name} new at {first}" in pushed, pushed


def test_a_refused_reference_is_logged_as_refused(site: Site, alice: Person) -> None:
    repository = site.repository("acme/site", alice="developer")
    _, folder = clone(alice, "acme/site")
    made = commit(alice, folder, "one")
    change(site, repository, protect_default=True)
    assert alice.git("push", "-q", "origin", "HEAD:main", where=folder).code != 0
    outcome, words = said(site, 2)[-1]
    assert outcome == "refused"
    assert "a push of alice to acme/site changed none of 1 branches and tags" in words
    assert alice.git("push", "-q", "origin", "HEAD:main", "HEAD:topic", where=folder).code != 0
    outcome, words = said(site, 4)[-1]
    assert outcome == "done"
    assert f"topic new at {made}; 1 more were refused" in words


def test_a_push_that_breaks_off_changed_nothing(site: Site, alice: Person) -> None:
    """The client is killed when the service has begun to listen to it."""
    _, folder = clone(alice, "acme/site")
    commit(alice, folder, "one")
    words = [*alice.ssh_words(), f"{site.host.username}@127.0.0.1", "git-receive-pack 'acme/site.git'"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        assert client.stdout.read(4)
        assert len(said(site, 1)) == 1, "it has begun, and no more is known"
        client.kill()
    assert "ended without a change" in said(site, 2)[-1][1]


def test_the_first_branch_is_what_a_clone_checks_out(site: Site, alice: Person) -> None:
    _, folder = clone(alice, "acme/site")
    first = commit(alice, folder, "one")
    assert alice.git("push", "-q", "origin", "HEAD:master", where=folder).code == 0
    ended, again = clone(alice, "acme/site")
    assert ended.code == 0, ended.said
    assert alice.git("rev-parse", "--short=7", "HEAD", where=again).out.decode().strip() == first
    assert any("master is the default branch of acme/site" in entry[3] for entry in site.events())
    deleted = alice.git("push", "origin", ":master", where=folder)
    assert deleted.code != 0
    assert "refusing to delete the current branch" in deleted.said
    assert "receive.deny" not in deleted.said, "a setting that is not hers"
    # Whatever comes later does not change it.
    assert alice.git("push", "-q", "origin", "HEAD:main", where=folder).code == 0
    _, later = clone(alice, "acme/site")
    assert alice.git("rev-parse", "--abbrev-ref", "HEAD", where=later).out.decode().strip() == "master"


@pytest.mark.parametrize(
    ("refs", "default"),
    [
        (("bugfix", "develop", "master"), "master"),
        (("apply", "release/2", "trunk"), "trunk"),
        (("tags/v1", "zeta"), "zeta"),
        (("alpha", "zeta"), "alpha"),
    ],
)
def test_a_usual_name_among_branches_pushed_at_once_becomes_the_default(
    site: Site, alice: Person, refs: tuple[str, ...], default: str
) -> None:
    """As who moves a repository here sends them: in the order of their names."""
    _, folder = clone(alice, "acme/site")
    commit(alice, folder, "one")
    places = [f"HEAD:refs/{ref if ref.startswith('tags/') else f'heads/{ref}'}" for ref in refs]
    assert alice.git("push", "-q", "origin", *places, where=folder).code == 0
    _, again = clone(alice, "acme/site")
    assert alice.git("rev-parse", "--abbrev-ref", "HEAD", where=again).out.decode().strip() == default


@pytest.mark.parametrize(
    ("first", "default"), [(b"main/topic", b"main/topic"), (b"HEAD", b"topic"), (b"caf\xe9", b"topic")]
)
def test_a_branch_that_head_cannot_name_leaves_it_to_the_next(
    site: Site, alice: Person, first: bytes, default: bytes
) -> None:
    """main/topic leaves no room for main; a branch HEAD, or one in Latin-1, git takes, and a clone comes to neither."""
    _, folder = clone(alice, "acme/site")
    commit(alice, folder, "one")
    places = ["HEAD:refs/heads/" + os.fsdecode(name) for name in (first, b"topic")]
    assert alice.git("push", "-q", "origin", *places, where=folder).code == 0
    _, again = clone(alice, "acme/site")
    assert alice.git("rev-parse", "--abbrev-ref", "HEAD", where=again).out.strip() == default
