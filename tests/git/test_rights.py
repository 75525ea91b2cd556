"""Who may do what with which repository, with the real git: keys, roles, deploy keys, visibility, old names."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from keyrack.core.git import deploy_keys as deploy_key_rules
from keyrack.core.git import repositories as repository_rules
from keyrack.core.instance import Instance
from keyrack.core.people import actors, offboarding, users
from keyrack.model import Role
from keyrack.store.git import repositories as repository_rows
from keyrack.store.git.repositories import Repository
from keyrack.store.keys import uses
from keyrack.store.sealing import sealed
from keyrack.store.tables import deploy_keys, key_owners, repositories, repository_names, user_keys
from tests.git.people import Ended, Person, Site
from tests.waiting import wait_until

ALICE, BOB, OLGA, MALLORY, VICTOR = (f"token-of-{name}" for name in ("alice", "bob", "olga", "mallory", "victor"))
NO_SUCH = "Keyrack: There is no such repository."


def change(site: Site, repository: Repository, **values: object) -> None:
    """Set columns of a repository."""
    row = repositories.c.id == repository.id
    site.service.instance.database.write(lambda connection: sealed.change(connection, repositories, row, values=values))


def deploy(site: Site, repository: Repository, person: Person, *, can_push: bool) -> None:
    """Make a person's key a deploy key of a repository."""
    deploy_key_rules.add(
        site.service.instance,
        actors.system_actor(1),
        repository.id,
        title=person.name,
        public_key=person.public,
        can_push=can_push,
    )


def clone(person: Person, path: str) -> tuple[Ended, Path]:
    """Clone a repository to a new folder."""
    folder = person.folder / f"clone-{secrets.token_hex(4)}"
    return person.git("clone", "-q", person.url(path), str(folder)), folder


def push(person: Person, path: str, branch: str = "main") -> Ended:
    """Clone, commit something, and push it to a branch."""
    ended, folder = clone(person, path)
    assert ended.code == 0, ended.said
    person.commit(folder, f"file-{secrets.token_hex(4)}")
    return person.git("push", "-q", "origin", f"HEAD:{branch}", where=folder)


def refused(ended: Ended, words: str) -> None:
    """Git failed, and these words say why."""
    assert ended.code != 0
    assert words in ended.said


def test_clone_commit_push_and_the_log(site: Site) -> None:
    repository = site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    ended = push(alice, "acme/site")
    assert ended.code == 0, ended.said
    ended, folder = clone(alice, "acme/site")
    assert ended.code == 0, ended.said
    assert list(folder.glob("file-*"))
    wait_until(lambda: len(site.events()) == 4, "the end of the push")
    log = site.events()
    assert sorted(entry[:3] for entry in log) == [
        ("alice", "git:fetch", "done"),
        ("alice", "git:fetch", "done"),
        ("alice", "git:push", "done"),  # begun
        ("alice", "git:push", "done"),  # ended
    ]
    assert all(alice.fingerprint in entry[3] and repository.path in entry[3] for entry in log)
    database = site.service.instance.database
    (use,) = database.read(lambda connection: uses.of_keys(connection, 1, [alice.fingerprint]))[alice.fingerprint]
    assert use.server_id is None


def test_both_forms_of_a_repository_address_work(site: Site) -> None:
    site.repository("acme/site", alice="viewer")
    alice = site.person("alice", token=ALICE)
    assert alice.git("ls-remote", alice.url("acme/site")).code == 0
    # The port of the short form comes from ssh's options, as it would from ~/.ssh/config.
    for address in ("acme/site.git", "acme/site", "/acme/site.git"):
        ended = alice.git("ls-remote", f"{site.host.username}@127.0.0.1:{address}")
        assert ended.code == 0, ended.said


def test_a_deleted_key_is_refused(site: Site) -> None:
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    assert clone(alice, "acme/site")[0].code == 0
    site.unregister(ALICE, alice.key_id)
    refused(clone(alice, "acme/site")[0], "Permission denied (publickey)")


def test_a_removed_member_is_refused(site: Site) -> None:
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    assert clone(alice, "acme/site")[0].code == 0
    site.repository("acme/site")
    refused(clone(alice, "acme/site")[0], NO_SUCH)
    assert site.events()[-1][1:3] == ("git:fetch", "refused")


def _disabled(instance: Instance, number: int) -> None:
    users.change(instance, actors.system_actor(1), number, enabled=False)


def _removed(instance: Instance, number: int) -> None:
    users.delete_user(instance, actors.system_actor(1), number)


def _offboarded(instance: Instance, number: int) -> None:
    offboarding.offboard(instance, actors.system_actor(1), "alice")


@pytest.mark.parametrize("loss", [_disabled, _removed, _offboarded])
def test_a_former_member_can_no_longer_clone(site: Site, loss: Callable[[Instance, int], None]) -> None:
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    assert clone(alice, "acme/site")[0].code == 0
    loss(site.service.instance, site.user_id("alice"))
    refused(clone(alice, "acme/site")[0], "Permission denied (publickey)")


def test_a_viewer_reads_only(site: Site) -> None:
    site.repository("acme/site", alice="developer", bob="viewer")
    assert push(site.person("alice", token=ALICE), "acme/site").code == 0
    bob = site.person("bob", token=BOB)
    refused(push(bob, "acme/site"), "you are a viewer of it")
    assert ("bob", "git:push", "refused") in [entry[:3] for entry in site.events()]


def test_deploy_keys_open_their_one_repository(site: Site) -> None:
    place, other = site.repository("acme/site"), site.repository("acme/other")
    reader, writer = site.person("reader"), site.person("writer")
    deploy(site, place, reader, can_push=False)
    deploy(site, place, writer, can_push=True)
    assert push(writer, "acme/site").code == 0
    refused(push(reader, "acme/site"), "This deploy key may read this repository, but not push to it.")
    for machine in (reader, writer):
        # A submodule that the key was not added to, and one that is not there: in the same words.
        for path in (other.path, "acme/none"):
            refused(clone(machine, path)[0], f"{NO_SUCH} You are here with a deploy key, which opens only")


def test_a_deploy_key_of_two_workspaces_shows_neither_the_other(site: Site) -> None:
    instance, machine = site.service.instance, site.person("machine")

    def give(workspace: int, path: str) -> None:
        keyrack = actors.system_actor(workspace)
        repository_rules.ensure(instance, keyrack, path=path, members={})
        place = instance.database.read(lambda connection: repository_rows.by_path(connection, path))
        assert place is not None
        deploy_key_rules.add(instance, keyrack, place.id, title=f"of {path}", public_key=machine.public)

    give(1, "acme/site")
    give(2, "strangers/site")
    refused(push(machine, "strangers/site"), "This deploy key may read this repository, but not push to it.")
    assert site.events(1) == []
    assert {(entry[0], entry[2]) for entry in site.events(2)} == {
        ("deploy key of strangers/site", "done"),
        ("deploy key of strangers/site", "refused"),
    }


def test_a_deploy_key_made_to_write_in_the_database_opens_nothing(site: Site) -> None:
    place = site.repository("acme/site")
    reader = site.person("reader")
    deploy(site, place, reader, can_push=False)
    statement = update(deploy_keys).values(can_push=True)
    site.service.instance.database.write(lambda connection: connection.execute(statement))
    refused(clone(reader, "acme/site")[0], "Permission denied (publickey)")


def test_a_key_given_to_somebody_else_in_the_database_opens_nothing(site: Site) -> None:
    site.repository("acme/site", alice="developer")
    bob = site.person("bob", token=BOB)
    statement = update(user_keys).where(user_keys.c.id == bob.key_id).values(user_id=site.user_id("alice"))
    site.service.instance.database.write(lambda connection: connection.execute(statement))
    refused(clone(bob, "acme/site")[0], "Permission denied (publickey)")


def test_a_fingerprint_pointed_at_another_key_in_the_database_opens_nothing(site: Site) -> None:
    site.repository("acme/site", alice="developer")
    alice, bob = site.person("alice", token=ALICE), site.person("bob", token=BOB)
    statement = update(key_owners).where(key_owners.c.fingerprint == bob.fingerprint).values(user_key_id=alice.key_id)
    site.service.instance.database.write(lambda connection: connection.execute(statement))
    refused(clone(bob, "acme/site")[0], "Permission denied (publickey)")


@pytest.mark.parametrize(("visibility", "readers"), [(0, ""), (10, "mallory"), (20, "mallory victor")])
def test_visibility(site: Site, visibility: int, readers: str) -> None:
    place = site.repository("acme/site", alice="developer")
    change(site, place, visibility=visibility)
    assert push(site.person("alice", token=ALICE), "acme/site").code == 0
    owners = {"mallory": MALLORY, "victor": VICTOR}
    policies = "codeartsrepo::*"
    grant_keys(site, policies)
    for name, token in owners.items():
        person = site.person(name, token=token)
        ended, folder = clone(person, "acme/site")
        if name not in readers:
            refused(ended, NO_SUCH)
            continue
        assert ended.code == 0, ended.said
        person.commit(folder, "mine")
        refused(person.git("push", "origin", "HEAD:main", where=folder), "you are not a member of it")


def grant_keys(site: Site, *policies: str) -> None:
    """Let mallory register keys."""
    from keyrack.core.people import actors, users

    users.change_rights(
        site.service.instance, actors.system_actor(1), site.user_id("mallory"), role=Role.MEMBER, policies=policies
    )


def test_the_owner_of_the_workspace_may_do_everything_in_it(site: Site) -> None:
    place = site.repository("acme/site")
    olga, victor = site.person("olga", token=OLGA), site.person("victor", token=VICTOR)
    assert push(olga, "acme/site").code == 0
    refused(clone(victor, "acme/site")[0], NO_SUCH)
    missing = clone(victor, "acme/nothing")[0]
    refused(missing, NO_SUCH)
    # What is not theirs and what does not exist sound alike, and the owners' log tells nothing of either.
    assert place.path not in [entry[3] for entry in site.events() if entry[0] == "victor"]
    assert [entry[2] for entry in site.events(workspace_id=2)] == ["refused", "refused"]


def test_a_renamed_repository_answers_under_its_old_name(site: Site) -> None:
    place = site.repository("acme/site", alice="developer", bob="viewer")
    alice, victor = site.person("alice", token=ALICE), site.person("victor", token=VICTOR)
    assert push(alice, "acme/site").code == 0
    change(site, place, path="acme/home")
    former = {"path": "acme/site", "repository_id": place.id}
    site.service.instance.database.write(lambda connection: sealed.insert_row(connection, repository_names, former))
    ended, folder = clone(alice, "acme/site")
    assert ended.code == 0, ended.said
    assert "acme/site has moved to acme/home" in ended.said
    assert list(folder.glob("file-*"))
    assert "has moved" not in clone(alice, "acme/home")[0].said
    ended = clone(victor, "acme/site")[0]
    refused(ended, NO_SUCH)
    assert "acme/home" not in ended.said


def test_a_protected_default_branch(site: Site) -> None:
    place = site.repository("acme/site", alice="developer", bob="admin")
    change(site, place, protect_default=True)
    alice, bob = site.person("alice", token=ALICE), site.person("bob", token=BOB)
    refused(push(alice, "acme/site"), "this branch is protected")
    assert push(alice, "acme/site", branch="topic").code == 0
    assert push(bob, "acme/site").code == 0


def test_every_type_of_key(site: Site) -> None:
    site.repository("acme/site", alice="viewer")
    for key_type in ("ed25519", "ecdsa", "rsa"):
        alice = site.person("alice", token=ALICE, key_type=key_type)
        assert alice.git("ls-remote", alice.url("acme/site")).code == 0, key_type
