"""Git while parts are away: the database, the authorizer; what goes on, what is refused, and for how long."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from keyrack.core.workspace import apply as workspace_apply
from keyrack.store.sealing import sealed
from keyrack.store.tables import user_keys
from tests.git.people import Ended, Person, Site, freeze, start_host
from tests.git.test_rights import clone, push
from tests.git.test_transfers import LONG, MEGABYTE, THIN, fill, slowly
from tests.login.private_sshd import strict_folder
from tests.ports import free_port
from tests.postgres import Cluster
from tests.services import TEAM, Service, running, settings_for
from tests.waiting import wait_until

ALICE, BOB = "token-of-alice", "token-of-bob"


@contextmanager
def site_on(cluster: Cluster, tmp_path: Path, stale_seconds: int) -> Iterator[Site]:
    """A service and a Git host on a PostgreSQL that the test may stop; it runs again at the end."""
    url = cluster.create_database()
    folder_of_people = tmp_path / "people"
    folder_of_people.mkdir()
    settings = settings_for(tmp_path / "data", url, git_stale_seconds=stale_seconds)
    with running(settings) as service, strict_folder() as folder:
        workspace_apply.apply(service.instance, TEAM, {})
        host = start_host(service, folder)
        try:
            yield Site(service, host, folder_of_people)
        finally:
            host.stop()


def reads(person: Person) -> bool:
    """Whether a person may list the branches of acme/site now."""
    ended = person.git("ls-remote", person.url("acme/site"))
    known = ("Permission denied (publickey)", "Git cannot confirm your rights")
    assert ended.code == 0 or any(words in ended.said for words in known), ended.said
    return ended.code == 0


@pytest.fixture
def stopped_cluster(durable_cluster: Cluster) -> Iterator[Cluster]:
    """A PostgreSQL that runs again after the test, whatever the test does."""
    yield durable_cluster
    durable_cluster.stop()
    durable_cluster.start()


def test_recent_answers_hold_while_the_database_is_away(stopped_cluster: Cluster, tmp_path: Path) -> None:
    with site_on(stopped_cluster, tmp_path, stale_seconds=600) as site:
        site.repository("acme/site", alice="developer", bob="viewer")
        alice, bob = site.person("alice", token=ALICE), site.person("bob", token=BOB)
        assert push(alice, "acme/site").code == 0
        assert reads(alice)
        stopped_cluster.stop()
        assert reads(alice), "alice was known a moment ago"
        assert not reads(bob), "nothing recent is known of bob"
        stopped_cluster.start()
        wait_until(lambda: reads(bob), "the database to answer again")
        log = site.events()
        assert [entry[:2] for entry in log].count(("alice", "git:fetch")) == 3, "the fetch meanwhile is in the log"


def test_a_no_is_remembered_as_well(stopped_cluster: Cluster, tmp_path: Path) -> None:
    with site_on(stopped_cluster, tmp_path, stale_seconds=600) as site:
        site.repository("acme/site", alice="developer")
        alice = site.person("alice", token=ALICE)
        assert reads(alice)
        site.unregister(ALICE, alice.key_id)
        assert not reads(alice)
        stopped_cluster.stop()
        assert not reads(alice)


def cloned_while_it_stops(site: Site, person: Person, cluster: Cluster) -> Ended:
    """What a slow clone of acme/site ends with, in the middle of which the database goes away."""
    with ThreadPoolExecutor(1) as pool:
        slow = person.folder / "slow"
        under_way = pool.submit(slowly, person, "down", "clone", "-q", person.url("acme/site"), str(slow))
        wait_until(lambda: site.host.running == 1, "the transfer to begin")
        cluster.stop()
        return under_way.result()


def test_a_remembered_answer_is_not_used_beyond_its_time(stopped_cluster: Cluster, tmp_path: Path) -> None:
    with site_on(stopped_cluster, tmp_path, stale_seconds=2) as site:
        site.repository("acme/site", alice="developer")
        alice = site.person("alice", token=ALICE)
        fill(site, alice, "acme/site", LONG)
        wait_until(lambda: site.host.running == 0, "what was pushed to be over")
        ended = cloned_while_it_stops(site, alice, stopped_cluster)
        assert ended.code != 0
        assert "the transfer was stopped: Git cannot confirm your rights" in ended.said
        wait_until(lambda: not reads(alice), "the bound to pass")


def test_a_key_ends_while_the_database_is_away(stopped_cluster: Cluster, tmp_path: Path) -> None:
    with site_on(stopped_cluster, tmp_path, stale_seconds=600) as site:
        site.repository("acme/site", alice="developer")
        alice = site.person("alice", token=ALICE)
        fill(site, alice, "acme/site", LONG)
        wait_until(lambda: site.host.running == 0, "what was pushed to be over")
        end = {"expires_at": site.service.instance.now() + timedelta(seconds=15)}
        row = user_keys.c.id == alice.key_id
        site.service.instance.database.write(lambda connection: sealed.change(connection, user_keys, row, values=end))
        ended = cloned_while_it_stops(site, alice, stopped_cluster)
        assert "the transfer was stopped: Your SSH key is not registered any more" in ended.said
        ended = alice.git("ls-remote", alice.url("acme/site"))
        assert "Your SSH key is not registered any more" in ended.said


class Process:
    """`keyrack git-host` as a process of its own, beside the service."""

    def __init__(self, service: Service, folder: Path, port: int) -> None:
        self.printed = folder / "printed"
        words = [sys.executable, "-m", "keyrack.cli.main", "git-host", "--data", str(service.instance.settings.data)]
        words += ["--git-listen", f"127.0.0.1:{port}"]
        with self.printed.open("wb") as output:
            self.process = subprocess.Popen(words, stdout=output, stderr=output)
        wait_until(
            lambda: "Git is served at" in self.printed.read_text("utf-8") or self.process.poll() is not None,
            "the Git host",
        )
        assert self.process.poll() is None, self.printed.read_text("utf-8")

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.process.wait(60)

    def stop(self) -> None:
        """End it as an operator would."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.printed.read_text("utf-8")


def test_a_second_git_host_on_a_folder_is_refused_and_the_first_goes_on(team: Service, tmp_path: Path) -> None:
    """It wrote its own settings for sshd over the first's and ended its sshd, which then never came back."""
    port = free_port()
    first = Process(team, tmp_path, port)
    try:
        for again in (port, free_port()):
            words = [sys.executable, "-m", "keyrack.cli.main", "git-host", "--git-listen", f"127.0.0.1:{again}"]
            data = str(team.instance.settings.data)
            second = subprocess.run([*words, "--data", data], capture_output=True, text=True, timeout=60, check=False)
            assert (second.returncode, "Another Git host runs from " in second.stderr) == (1, True), second.stderr
        with socket.create_connection(("127.0.0.1", port), 30) as greeted:
            assert greeted.recv(4) == b"SSH-"
        assert "has ended" not in first.printed.read_text("utf-8")
    finally:
        first.stop()
    Process(team, tmp_path, port).stop()  # what held it is gone with its process


def test_a_transfer_outlives_a_crash_of_the_authorizer_and_can_still_be_stopped(team: Service, tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    port = free_port()
    first = Process(team, tmp_path, port)
    # Only its addresses are used here: the process serves.
    with strict_folder() as folder:
        site = Site(team, start_host(team, folder), tmp_path / "people")
        try:
            site.repository("acme/site", alice="developer", bob="developer")
            alice = site.person("alice", token=ALICE)
            bob = site.person("bob", token=BOB)
            fill(site, alice, "acme/site", 12 * MEGABYTE)
            with ThreadPoolExecutor(2) as pool:
                hers, his = (pool.submit(from_process, person, port) for person in (alice, bob))
                wait_until(
                    lambda: len(sessions(site)) == 2 and not site.host.running, "both to begin, through the process"
                )
                first.kill()
                second = Process(team, tmp_path, port)
                site.unregister(BOB, bob.key_id)
                assert his.result() != 0
                assert hers.result() == 0
                second.stop()
        finally:
            site.host.stop()


def test_a_transfer_with_a_key_frozen_meanwhile_goes_on_with_the_next_authorizer(site: Site) -> None:
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    assert [asked(site, kind, alice) for kind in ("open", "again")] == ["serve", "go"]
    freeze(site, alice)
    assert [asked(site, kind, alice) for kind in ("open", "again")] == ["refuse", "go"]
    site.unregister(ALICE, alice.key_id)
    assert [asked(site, kind, alice) for kind in ("open", "again")] == ["refuse", "refuse"]


def asked(site: Site, kind: str, person: Person) -> str:
    """What the authorizer answers the program that sshd starts for an operation, new or under way."""
    payload = "\0".join((kind, person.fingerprint, "127.0.0.1", "", "git-upload-pack 'acme/site.git'", "")).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(30)
        connection.connect(str(site.host.directory / "authorizer" / "s"))
        connection.sendall(struct.pack(">I", len(payload)) + payload)
        return connection.recv(65_536)[4:].partition(b"\0")[0].decode()


def from_process(person: Person, port: int) -> int:
    """Clone slowly from the Git host at a port, whose host key is its own; the exit code."""
    url = person.url("acme/site").replace(f":{person.site.host.port}/", f":{port}/")
    person.options = [
        "-p",
        str(port),
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        f"UserKnownHostsFile={person.folder / 'known'}",
    ]
    return slowly(person, "down", "clone", "-q", url, str(person.folder / "slow"), piece=THIN).code


def sessions(site: Site) -> list[int]:
    """Processes of git that send a pack from this site's repositories."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            place = str((entry / "cwd").readlink())
        except OSError:
            continue
        if b"pack-objects" in words and place.startswith(str(site.host.repositories)):
            found.append(int(entry.name))
    return found


def test_git_is_refused_in_words_while_the_authorizer_is_away(team: Service, tmp_path: Path) -> None:
    (tmp_path / "people").mkdir()
    with strict_folder() as folder:
        host = start_host(team, folder)
        site = Site(team, host, tmp_path / "people")
        try:
            site.repository("acme/site", alice="developer")
            alice = site.person("alice", token=ALICE)
            assert clone(alice, "acme/site")[0].code == 0
            assert host.authorizer is not None
            host.authorizer.stop()
            assert "Permission denied (publickey)" in clone(alice, "acme/site")[0].said
        finally:
            host.stop()


@pytest.mark.parametrize("with_its_folder", [False, True])
def test_an_authorizer_whose_socket_was_removed_answers_again(site: Site, with_its_folder: bool) -> None:
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token=ALICE)
    socket_path = site.host.directory / "authorizer" / "s"
    socket_path.unlink()
    if with_its_folder:
        socket_path.parent.rmdir()
    wait_until(lambda: clone(alice, "acme/site")[0].code == 0, "Git to be open again")
    assert (socket_path.parent.stat().st_mode & 0o777, socket_path.stat().st_mode & 0o777) == (0o700, 0o600)


def test_the_log_says_why_gits_sshd_does_not_start_again(site: Site) -> None:
    server = site.host.server
    with capture_logs() as logged, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.is_running(), "Git's sshd to be gone")
        other.bind((server.address, server.port))
        other.listen()
        wait_until(lambda: logged, "the log to say so")
        assert f"Port {server.port} " in logged[0]["error"]
    wait_until(server.is_running, "Git's sshd to be back")
