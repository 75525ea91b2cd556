"""The power fails: after the next boot every file is old or new, and what was reported as done is done.

Each cut is a copy of the disk as it is at that moment, with nothing of what the system has not yet written. The file
system is ext4 as hard as it can be had: without the option that saves programs which forget fsync(2).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keyrack.agent.keys.remove_keys import rewrite
from keyrack.agent.state import StateFolder
from keyrack.agent.system.folder import PUBLIC_FILE, Folder
from keyrack.protocol import host_document
from keyrack.protocol.host_document import AuthorizedKey
from keyrack.ssh import authorized_keys, revoked_keys
from keyrack.ssh.public_key import fingerprint_of
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document, public_key
from tests.agent.small_service import SmallService
from tests.waiting import wait_until

CUTS = 200 if os.environ.get("KEYRACK_LONG") else 8
USERS = ("alice", "deploy")
HARD = "loop,commit=300,data=writeback,noauto_da_alloc"


class Disk:
    """A file system of its own at a path, which can be as after a power cut."""

    def __init__(self, image: Path, path: Path) -> None:
        self._image = image
        self._copies = 0
        self.path = path

    def begin(self) -> None:
        """Make it, or skip the test."""
        self.path.mkdir()
        if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
            pytest.skip("a disk of its own takes root and mkfs.ext4")
        with self._image.open("wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", self._image], check=True)
        if not _mount(self._image, self.path):
            pytest.skip("file systems cannot be mounted here")

    def cut(self) -> None:
        """As if the power had failed just now; nobody may have a file open there."""
        copy = self._copy()
        self.end()
        self._image = copy
        assert _mount(self._image, self.path)

    @contextmanager
    def after_a_cut(self) -> Iterator[Path]:
        """What would be found if the power failed just now."""
        copy, path = self._copy(), self.path.with_name("after")
        path.mkdir()
        try:
            assert _mount(copy, path)
            yield path
        finally:
            subprocess.run(["umount", path], check=False, capture_output=True)
            path.rmdir()
            copy.unlink()

    def _copy(self) -> Path:
        self._copies += 1
        copy = self._image.with_suffix(f".{self._copies}")
        subprocess.run(["cp", "--sparse=always", self._image, copy], check=True)
        return copy

    def end(self) -> None:
        """Let go of it."""
        subprocess.run(["umount", self.path], check=False, capture_output=True)
        self._image.unlink(missing_ok=True)


def _mount(image: Path, path: Path) -> bool:
    given: list[str | Path] = ["mount", "-t", "ext4", "-o", HARD, image, path]
    return subprocess.run(given, check=False, capture_output=True).returncode == 0


@pytest.fixture
def disk(folder: Path, tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "image", folder / "disk")
    made.begin()
    yield made
    made.end()


def someone_syncs(disk: Disk) -> None:
    """As any program may at any moment: what stands in folders is then on the disk, what stands in files is not."""
    descriptor = os.open(disk.path / "of-somebody", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x")
    os.fsync(descriptor)
    os.close(descriptor)


@pytest.mark.timeout(1800)
def test_every_file_is_of_a_revision_and_no_receipt_came_too_early(disk: Disk, service: SmallService) -> None:
    host = EnrolledHost.enrol(disk.path, service)
    known: dict[bytes, int] = {revoked_keys.render(()): 0}
    revision, chance = 0, random.Random(2)

    def publish() -> None:
        nonlocal revision
        revision += 1
        keys, gone = [public_key() for _ in range(3)], public_key()
        known[authorized_keys.render(keys)] = known[revoked_keys.render([gone])] = revision
        text = document(revision, {name: [AuthorizedKey(key) for key in keys] for name in USERS}, [gone])
        service.publish(revision, service.signer.signed(text))

    for _ in range(CUTS):
        agent = subprocess.Popen(host.command("run"), stderr=subprocess.DEVNULL)
        try:
            publish()
            service.wait_for_report("applied", revision)
            end = time.monotonic() + chance.uniform(0.02, 0.5)
            while time.monotonic() < end:
                publish()
                time.sleep(chance.uniform(0, 0.02))
                if chance.random() < 0.2:
                    someone_syncs(disk)
            agent.send_signal(signal.SIGSTOP)
        finally:
            agent.kill()
            agent.wait()
        acknowledged = max(one["revision"] for one in list(service.reports) if one.get("state") == "applied")
        disk.cut()
        files = {name: data for name, data in host.files().items() if not name.startswith(".keyrack-")}
        assert set(files) == {*USERS, "revoked"}
        assert all(known[data] >= acknowledged for data in files.values()), (files, acknowledged)
        kept = StateFolder.open(str(host.state)).accepted()
        assert kept is not None
        assert host_document.decode(kept.document).revision >= acknowledged


def test_a_key_file_changed_for_one_question_is_whole_after_a_power_cut(disk: Disk) -> None:
    """For a question to sshd."""
    place = disk.path / "keys"
    folder = Folder.open(str(place), create=True)
    folder.write("deploy", b"old\n", PUBLIC_FILE)
    folder.sync()
    try:
        with folder.instead("deploy", b"old\nand more\n"):
            someone_syncs(disk)
            with disk.after_a_cut() as found:
                assert (found / "keys" / "deploy").read_bytes() in (b"old\n", b"old\nand more\n")
        someone_syncs(disk)
        with disk.after_a_cut() as found:
            assert (found / "keys" / "deploy").read_bytes() == b"old\n"
    finally:
        folder.close()


def test_a_folder_that_was_made_is_there(disk: Disk) -> None:
    Folder.open(str(disk.path / "keyrack" / "keys"), create=True).close()
    with disk.after_a_cut() as found:
        assert (found / "keyrack" / "keys").is_dir()


def test_a_key_that_was_taken_out_of_a_file_does_not_come_back(disk: Disk) -> None:
    gone, stays = public_key(), public_key()
    file = disk.path / "authorized_keys"
    file.write_text(f"{gone}\n{stays}\n", "ascii")
    os.sync()
    rewrite(str(file), fingerprint_of(gone))
    disk.cut()
    assert file.read_text("ascii") == f"{stays}\n"


def test_notes_left_empty_by_a_power_cut_lock_nobody_out(host: EnrolledHost, service: SmallService) -> None:
    """Those that are written without waiting for the disk."""
    key = public_key()
    service.publish(3, service.signer.signed(document(3, {"deploy": [AuthorizedKey(key)]})))
    agent = subprocess.Popen(host.command("run"), stderr=subprocess.DEVNULL)
    service.wait_for_report("applied", 3)
    wait_until(lambda: (host.state / "status.json").exists(), "a note")
    agent.kill()
    agent.wait()
    before = host.files()
    lasting = {"accepted.json", "enrolment.json", "local.json", "local-last-good.json", "allowed_signers", "lock"}
    names = {path.name for path in host.state.iterdir()} - lasting
    assert "status.json" in names
    for name in sorted(names):
        (host.state / name).write_bytes(b"")
    for command in (["catch-up"], ["run", "--once"], ["status"], ["doctor"]):
        ended = host.agent(*command)
        assert "Traceback" not in ended.stderr, ended.stderr
        assert host.files() == before
    assert service.reports[-1]["revision"] == 3
