"""On a host where nothing more can be begun, as somebody began all there may be, documents come into force."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from keyrack.agent.service.follow import QUIET_SECONDS
from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.signed_documents import public_key
from tests.agent.small_service import SmallService
from tests.agent.watched_host import Watched, enrolled
from tests.login.private_sshd import USERNAME, Key
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can bound what others may begin")


class Bound:
    """A group of processes that may be so many."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pid: int) -> None:
        """This process and all that it begins."""
        (self._folder / "cgroup.procs").write_text(str(pid), "ascii")

    @property
    def into(self) -> list[str]:
        """What a command begins with to be in it."""
        return ["sh", "-c", f'echo $$ > {self._folder}/cgroup.procs && exec "$@"', "sh"]

    def most(self, count: int) -> None:
        """How many there may be, threads too; those that are there stay."""
        (self._folder / "pids.max").write_text(str(count), "ascii")


@pytest.fixture
def bound() -> Iterator[Bound]:
    """A group; skips the test where none can be made."""
    places = ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")
    parent = next((Path(one) for one in places if (Path(one) / "cgroup.procs").exists()), None)
    if parent is None:
        pytest.skip("this test takes control groups")
    folder = parent / f"keyrack-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / "pids.max").read_text("ascii")
    except OSError:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip("this test takes control groups that count processes")
    try:
        yield Bound(folder)
    finally:
        wait_until(lambda: not (folder / "cgroup.procs").read_text("ascii"), "the group's processes to end")
        folder.rmdir()


@contextmanager
def watched(folder: Path, service: SmallService) -> Iterator[Watched]:
    """An agent that obeys, and may be bound."""
    with enrolled(folder, service) as host:
        host.publish({USERNAME: [AuthorizedKey(public_key())]})
        yield host


def revoke(host: Watched, key: str) -> None:
    """Publish a revocation, and wait until it is in force."""
    host.publish_alone({USERNAME: []}, revoked=(key,))
    wait_until(lambda: key.split()[1] in host.host.revoked_keys.read_text("ascii"), "the revocation")
    assert key.split()[1] not in (host.host.keys / USERNAME).read_text("ascii")


def test_a_revocation_comes_into_force_while_nothing_can_be_begun(
    folder: Path, service: SmallService, bound: Bound
) -> None:
    with watched(folder, service) as host:
        bound.add(host.agent_pid)
        bound.most(1)
        for number in range(4):
            revoke(host, public_key())
            if number == 1:
                before = len(os.listdir(f"/proc/{host.agent_pid}/fd"))
            time.sleep(QUIET_SECONDS + 0.5)  # for the scan that follows
        assert len(os.listdir(f"/proc/{host.agent_pid}/fd")) <= before, "descriptors are left open"
        bound.most(1000)
        host.publish({USERNAME: [AuthorizedKey(public_key())]})


def test_an_agent_that_starts_then_obeys_and_begins_the_rest_later(
    folder: Path, service: SmallService, bound: Bound, tmp_path: Path
) -> None:
    with watched(folder, service) as host:
        host.kill_agent()
        bound.most(1)
        host.start_agent(bound.into)
        revoke(host, public_key())
        bound.most(1000)
        key = Key.make(tmp_path / "key")
        host.publish({USERNAME: [AuthorizedKey(key.public)]})
        with host.ssh(key):
            host.wait_for_sessions(1)
