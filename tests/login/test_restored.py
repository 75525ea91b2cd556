"""Backup under load, key revoked, restore, service started: the revoked key opens neither the host nor Git."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from keyrack.cli.machine.demo_host import DemoHost
from keyrack.core.audit import events
from keyrack.core.hosts import resync, servers
from keyrack.core.keys import receipts
from keyrack.core.people import actors
from keyrack.settings import Settings
from keyrack.ssh.public_key import parse
from tests.core.keys_for_tests import fresh_line
from tests.git.people import Person, Site, start_host
from tests.login.private_sshd import USERNAME, Key, SshClient, agent_host, strict_folder
from tests.services import Service, running, settings_for
from tests.waiting import wait_until

OLGA = "token-of-olga"


def keyrack(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the data, as an operator does beside the service."""
    command = [sys.executable, "-m", "keyrack.cli.main", *arguments, "--data", str(settings.data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def git_beside(service: Service, folder: Path) -> Iterator[Site]:
    """Git over SSH, with a folder for people."""
    people_folder = folder / "people"
    people_folder.mkdir(exist_ok=True)
    with strict_folder() as own:
        host = start_host(service, own)
        try:
            yield Site(service, host, people_folder)
        finally:
            host.stop()


def fetches(site: Site, person: Person) -> bool:
    """Whether somebody's key opens the repository now."""
    person.site = site
    (person.folder / "known_hosts").write_bytes(site.host.known_hosts.read_bytes())
    return person.git("ls-remote", site.host.url("acme/shop")).code == 0


def add(service: Service, key: str, label: str) -> int:
    """Put a key on the account that can log in here."""
    body = {"label": label, "username": USERNAME, "publicKey": key}
    answer = service.call("POST", "/api/v3/servers/1/ssh/credentials", token=OLGA, json=body)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["id"])


def revoke(service: Service, line: str) -> None:
    """Take a key away from everywhere."""
    body = {"fingerprint": parse(line).fingerprint}
    assert service.call("POST", "/api/keyrack/v1/keys/revoke", token=OLGA, json=body).status_code == 200


@contextmanager
def load(service: Service) -> Iterator[None]:
    """Add keys all the time."""
    over = threading.Event()

    def run() -> None:
        number = 0
        while not over.is_set():
            number += 1
            add(service, fresh_line(), f"load-{number}")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(60)


@pytest.mark.parametrize("lost", [False, True], ids=["replaced", "lost"])
def test_a_key_revoked_after_the_backup_stays_refused(team_folder: Path, tmp_path: Path, lost: bool) -> None:
    """lost: the database is not there any more, so that only the host knows what was revoked."""
    data, copy = tmp_path / "data", tmp_path / "copy.db"
    shutil.copytree(team_folder, data)
    settings = settings_for(data, "")
    kept, late = Key.make(tmp_path / "kept"), Key.make(tmp_path / "late")
    with strict_folder() as folder, running(settings) as service, git_beside(service, tmp_path) as site:
        if USERNAME not in ("root", "deploy"):
            service.call("POST", "/api/v3/servers/1/users", token=OLGA, json={"username": USERNAME})
        bob, alice = site.person("bob", token="token-of-bob"), site.person("alice", token="token-of-alice")
        site.repository("acme/shop", bob="developer", alice="developer")
        doomed = Key(bob.key)
        invitation = servers.invite(service.instance, actors.system_actor(1), 1)
        with agent_host(folder, service.url, invitation) as (host, client):
            add(service, kept.public, "kept")
            add(service, doomed.public, "doomed")
            client.wait_until_open(kept)
            client.wait_until_open(doomed)
            assert fetches(site, bob)
            with load(service):
                made = keyrack(settings, "backup", str(copy))
            assert made.returncode == 0, made.stderr
            assert "instance.key" in made.stderr
            assert copy.stat().st_mode & 0o777 == 0o600
            assert keyrack(settings, "backup", str(copy)).returncode == 1, "it does not replace a backup unasked"
            revoke(service, doomed.public)
            add(service, late.public, "late")
            client.wait_until_open(late)
            assert not client.lets_in(doomed)
            assert not fetches(site, bob)
            in_use = keyrack(settings, "restore", str(copy), "--yes")
            assert in_use.returncode == 1
            assert "in use" in in_use.stderr
            _restored(settings, site, host, client, copy, tmp_path, lost, (kept, late, doomed), (alice, bob))


def _restored(
    settings: Settings,
    before: Site,
    host: DemoHost,
    client: SshClient,
    copy: Path,
    tmp_path: Path,
    lost: bool,
    keys: tuple[Key, Key, Key],
    team: tuple[Person, Person],
) -> None:
    kept, late, doomed = keys
    alice, bob = team
    # Another folder is the machine that takes over, with the old service stopped for good.
    moved = tmp_path / "moved"
    shutil.copytree(settings.data, moved, ignore=shutil.ignore_patterns("keyrack.db*"))
    if not lost:
        made = keyrack(settings, "backup", str(moved / "keyrack.db"))
        assert made.returncode == 0, made.stderr
    before.host.stop()
    restored = replace(settings, data=moved)
    done = keyrack(restored, "restore", str(copy), "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("Stays taken away" in done.stdout) is not lost
    assert (list(moved.glob("keyrack.db.before-*")) == []) is lost
    _serve_instead(before.service, restored, host, client, tmp_path, (kept, late, doomed), (alice, bob))


def _serve_instead(
    old: Service,
    settings: Settings,
    host: DemoHost,
    client: SshClient,
    tmp_path: Path,
    keys: tuple[Key, Key, Key],
    team: tuple[Person, Person],
) -> None:
    kept, late, doomed = keys
    alice, bob = team
    elsewhere = replace(settings, listen=settings_for(settings.data, "").listen)
    host.stop_agent()
    _point_agent(host, old.url, elsewhere.url)
    with running(elsewhere) as service, git_beside(service, tmp_path) as site:
        instance, actor = service.instance, actors.system_actor(1)
        host._start_agent()
        wait_until(lambda: resync.difference(instance, actor, 1).undecided is True, "the host to be noticed")
        wait_until(lambda: not resync.difference(instance, actor, 1).asked, "the host's last document")
        client.wait_until_open(kept)
        assert not client.lets_in(doomed)
        assert not fetches(site, bob)
        assert fetches(site, alice)
        # What was added since the backup is lost, as a restore says; added again, it opens.
        add(service, late.public, "late")
        client.wait_until_open(late)
        assert not client.lets_in(doomed)
        wait_until(
            lambda: receipts.of_key(instance, actor, parse(doomed.public).fingerprint).done,
            "the receipt of the revocation",
        )
        alarms = [one for one in events.find(instance, actor, limit=200).items if one.level == "alarm"]
        assert any("Restored the database" in one.summary for one in alarms)
        shown = keyrack(elsewhere, "hosts", "resync", "--all", "--yes", "--workspace", "acme")
        assert shown.returncode == 0, shown.stderr
        assert not resync.difference(instance, actor, 1).undecided
        later = Key.make(tmp_path / "later")
        add(service, later.public, "later")
        client.wait_until_open(later)
        assert not client.lets_in(doomed)


def _point_agent(host: DemoHost, old: str, new: str) -> None:
    """The service answers at another address; a name would lead there by itself."""
    path = host.agent_state / "enrolment.json"
    text = path.read_text("ascii").replace(old, new)
    path.write_text(text, "ascii")
    os.chmod(path, 0o600)
