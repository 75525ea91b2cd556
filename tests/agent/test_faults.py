"""Disks that fill up, calls that fail, agents that are killed: every file is old or new, and all heals by itself."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyrack.protocol.host_document import AuthorizedKey
from keyrack.ssh import authorized_keys, revoked_keys
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document, public_key
from tests.agent.small_service import SmallService
from tests.agent.watched_host import Watched, enrolled
from tests.login.private_sshd import USERNAME, Key
from tests.waiting import wait_until

# The long form, which takes minutes: KEYRACK_LONG=1.
LONG = bool(os.environ.get("KEYRACK_LONG"))
KILLS = 2000 if LONG else 100
LOGINS_EVERY = 25  # kills
USERS = ("alice", "deploy", "root")


class Revisions:
    """Documents whose files differ at every revision, and what each one's files are."""

    def __init__(self, service: SmallService, stays: str | None = None) -> None:
        """stays: a key that opens the calling account at every revision."""
        self._service = service
        self._stays = [stays] if stays else []
        self.published: dict[str, set[bytes]] = {name: set() for name in USERS}
        self.published["revoked"] = {revoked_keys.render(())}  # from enrolment
        self.latest: dict[str, bytes] = {}
        self.revision = 0

    def publish(self) -> None:
        """Publish the next one."""
        self.revision += 1
        keys = {name: [public_key() for _ in range(5)] for name in USERS}
        keys.setdefault(USERNAME, []).extend(self._stays)
        gone = [public_key()]
        users = {name: [AuthorizedKey(key) for key in lines] for name, lines in keys.items()}
        self.latest = {name: authorized_keys.render(lines) for name, lines in keys.items()}
        self.latest["revoked"] = revoked_keys.render(gone)
        for name, data in self.latest.items():
            self.published.setdefault(name, set()).add(data)
        text = document(self.revision, users, gone)
        self._service.publish(self.revision, self._service.signer.signed(text))

    def check(self, host: EnrolledHost) -> None:
        """Every file is one that was published; unfinished ones have a name that no account has."""
        for name, data in host.files().items():
            if not name.startswith(".keyrack-"):
                assert data in self.published[name], f"{name} is of no revision"


# What the agent asks of the system to change a file, or to see whether it must.
CALLS = ("open", "write", "fsync", "fchmod", "rename", "unlink", "listdir", "fstat", "lstat")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS])
def test_every_call_may_fail_once(
    host: EnrolledHost, service: SmallService, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    revisions = Revisions(service)
    revisions.publish()
    follower = host.follower()
    follower.step(0)
    real: Callable[..., Any] = getattr(os, call)
    countdown = [0]

    def failing(*arguments: Any, **named: Any) -> Any:
        countdown[0] -= 1
        if countdown[0] == 0:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **named)

    number, failed = 0, True
    while failed:
        number += 1
        (host.keys / "stranger").write_text("no document knows me\n")
        revisions.published["stranger"] = {b"no document knows me\n"}
        revisions.publish()
        countdown[0] = number
        with monkeypatch.context() as patched:
            patched.setattr(os, call, failing)
            follower.step(0)
        failed = countdown[0] <= 0
        revisions.check(host)
        follower = host.follower()  # as after a restart, or at its next check
        follower.step(0)
        assert host.files() == revisions.latest, f"{call} number {number} failed once, and it did not heal"


@pytest.fixture
def small_disk(host: EnrolledHost) -> Iterator[Path]:
    """The folder of the key files on a disk of 256 kB."""
    host.keys.parent.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k,mode=755", "tmpfs", str(host.keys.parent)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk takes root")
    yield host.keys.parent
    subprocess.run(["umount", "-l", str(host.keys.parent)], check=True)


def fill(disk: Path) -> None:
    """To the last byte."""
    with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(512))


def test_new_key_files_find_room_on_a_full_disk(host: EnrolledHost, service: SmallService, small_disk: Path) -> None:
    revisions = Revisions(service)
    revisions.publish()
    follower = host.follower()
    follower.step(0)
    fill(small_disk)
    for _ in range(3):
        revisions.publish()
        follower.step(0)
        assert host.files() == revisions.latest


def test_a_full_disk_keeps_the_old_files_and_heals(host: EnrolledHost, service: SmallService, small_disk: Path) -> None:
    revisions = Revisions(service)
    revisions.publish()
    agent = subprocess.Popen(host.command("run"), stderr=subprocess.DEVNULL)
    try:
        service.wait_for_report("applied", 1)
        before = host.files()
        (small_disk / ".keyrack-reserve").unlink()
        fill(small_disk)
        revisions.publish()
        report = service.wait_for_report("failed", 1)
        assert "No space left" in report["problems"][0]
        assert host.files() == before
        (small_disk / "filler").unlink()
        service.wait_for_report("applied", 2)
        assert host.files() == revisions.latest
    finally:
        agent.kill()
        agent.wait()


def test_a_limit_on_file_sizes_keeps_the_old_files(host: EnrolledHost, service: SmallService) -> None:
    revisions = Revisions(service)
    revisions.publish()
    assert host.agent("run", "--once").returncode == 0
    before = host.files()
    revisions.publish()
    ended = subprocess.run(
        host.command("run", "--once"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600)),
    )
    assert ended.returncode == 1
    assert "File too large" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert host.files() == before
    assert host.agent("run", "--once").returncode == 0
    assert host.files() == revisions.latest


def unfinished(host: EnrolledHost) -> list[str]:
    """Files that a killed agent had begun, anywhere it writes."""
    found = host.folder.rglob(".keyrack-*")
    return [str(path) for path in found if path.name != ".keyrack-reserve"]


@pytest.mark.timeout(7200)
def test_killed_at_any_moment_every_file_is_of_a_revision_and_the_right_ones_log_in(
    folder: Path, service: SmallService, tmp_path: Path
) -> None:
    stays, never = Key.make(tmp_path / "stays"), Key.make(tmp_path / "never")
    with enrolled(folder, service) as watched:
        revisions = Revisions(service, stays.public)
        revisions.publish()
        service.wait_for_report("applied", 1)
        watched.kill_agent()
        chance = random.Random(1)
        for number in range(1, KILLS + 1):
            watched.start_agent()
            end = time.monotonic() + chance.uniform(0.02, 0.35)
            while time.monotonic() < end:
                revisions.publish()
                time.sleep(chance.uniform(0, 0.01))
            watched.kill_agent()
            revisions.check(watched.host)
            if number % LOGINS_EVERY == 0:
                check_logins(watched, stays, never)
                watched.start_agent()
                wait_until(lambda: watched.host.files() == revisions.latest, "the last revision, and nothing beside it")
                wait_until(lambda: not unfinished(watched.host), "no unfinished file after the next start")
                check_logins(watched, stays, never)
                watched.kill_agent()


# An agent that has just begun a child, which has done nothing yet and is slow to.
JUST_FORKED = """
import os, sys, time
from keyrack.agent.state import StateFolder
StateFolder.open(sys.argv[1]).lock()
if os.fork() == 0:
    print(os.getpid(), flush=True)
    time.sleep(600)
time.sleep(600)
"""


def test_an_agent_starts_though_a_child_of_a_killed_one_still_runs(host: EnrolledHost, service: SmallService) -> None:
    Revisions(service).publish()
    words = [sys.executable, "-c", JUST_FORKED, str(host.state)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        begun = int(killed.stdout.readline())
        try:
            refused = host.agent("run", "--once")
            assert refused.returncode == 1
            assert "another agent is at work" in refused.stderr
            killed.kill()
            killed.wait()
            doctor = host.agent("doctor")
            assert "the agent is not running" in doctor.stdout, doctor.stdout + doctor.stderr
            ended = host.agent("run", "--once")
            assert ended.returncode == 0, ended.stderr
        finally:
            killed.kill()
            os.kill(begun, signal.SIGKILL)


def check_logins(watched: Watched, stays: Key, never: Key) -> None:
    """A key of every revision opens a real login, and one of none does not."""
    assert watched.client.lets_in(stays)
    assert not watched.client.lets_in(never)
