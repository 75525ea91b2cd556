"""A long scan for keys keeps no document waiting, and still tells all of what it found: real sshd, the real agent."""

from __future__ import annotations

import contextlib
import pwd
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.agent.keys.unmanaged_keys import Scanner
from keyrack.agent.sshd.places import Place
from keyrack.agent.sshd.settings import Effective, Sshd
from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.signed_documents import public_key
from tests.agent.small_service import SmallService
from tests.agent.watched_host import Watched, enrolled
from tests.login.private_sshd import USERNAME
from tests.waiting import DEADLINE_SECONDS, wait_until

SEEN_SECONDS = 5


@pytest.fixture
def watched(folder: Path, service: SmallService) -> Iterator[Watched]:
    """sshd and the agent, with nothing published yet."""
    with enrolled(folder, service) as host:
        yield host


class CountingSshd(Sshd):
    """The host's sshd, and how often it was asked about an account."""

    asked = 0

    def effective(
        self,
        user: str | None = None,
        config: str | None = None,
        place: Place | None = None,
        given: tuple[str, ...] = (),
    ) -> Effective:
        """As Sshd does."""
        self.asked += user is not None
        return super().effective(user, config, place, given)


def is_searching(host: Watched) -> bool:
    """Whether the agent asks sshd just now what it reads for one account."""
    for path in Path(f"/proc/{host.agent_pid}/task").glob("[0-9]*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text("ascii").split():
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if str(host.sshd.config).encode() in words and any(word.startswith(b"user=") for word in words):
                    return True
    return False


def is_reported(service: SmallService, comment: str) -> bool:
    """Whether a report has a key with this comment."""
    return any(one["comment"] == comment for report in list(service.reports) for one in report.get("keys_found", ()))


def begin_a_scan(host: Watched) -> None:
    """Have the agent scan for keys, and return while it does."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with host.sshd.config.open("a", encoding="ascii") as settings:
            settings.write("# changed settings make the next scan a long one\n")
        host.publish({USERNAME: [AuthorizedKey(public_key())]})
        # It is over within a second, and on a busy machine may be before this process has its turn: then once more.
        until = time.monotonic() + SEEN_SECONDS
        while time.monotonic() < until:
            if is_searching(host):
                return
            time.sleep(0.005)
    raise AssertionError("no scan for keys was seen")


def arrived_during_a_scan(host: Watched) -> bool:
    """Publish a document during a scan; whether the scan still ran when its file was in place."""
    begin_a_scan(host)
    key = public_key()
    host.publish_alone({USERNAME: [AuthorizedKey(key)]})
    wait_until(lambda: key.encode() in (host.host.keys / USERNAME).read_bytes(), "the document's file")
    # A scan asks about each account once, so one that had ended would not be seen again.
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if is_searching(host):
            return True
    return False


def test_a_document_is_obeyed_during_a_scan(watched: Watched, service: SmallService) -> None:
    if len(pwd.getpwall()) < 10:
        pytest.skip("a scan is long only on a machine with many accounts")
    watched.publish({USERNAME: [AuthorizedKey(public_key())]})
    by_hand = watched.host.folder / "by_hand"
    by_hand.write_text(f"{public_key()} by-hand\n", "ascii")
    with watched.sshd.config.open("a", encoding="ascii") as settings:
        # A pattern: each account is asked about.
        settings.write(f"Match User {USERNAME}*\n    AuthorizedKeysFile {watched.host.keys}/%u {by_hand}\n")
    # On a busy machine a scan may end just then; only if no document is ever obeyed during one, they wait for it.
    assert any(arrived_during_a_scan(watched) for _ in range(5)), "each document waited for a scan"
    wait_until(lambda: is_reported(service, "by-hand"), "the key in a report")


@pytest.mark.parametrize(
    ("settings", "asked"),
    [
        ("AuthorizedKeysFile a\n", "once"),
        ("Match all\n  AuthorizedKeysFile a\n", "once"),
        ("AuthorizedKeysFile a\nMatch User root\n  X11Forwarding no\n", "once"),
        ("Match User root\n  AuthorizedKeysFile b\n", "each"),
        ("Match User root\n  X11Forwarding no\nMatch all\n  AuthorizedKeysFile b\n", "each"),
    ],
)
def test_sshd_is_asked_about_each_account_only_where_rules_name_keys(tmp_path: Path, settings: str, asked: str) -> None:
    host_key = tmp_path / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    config = tmp_path / "config"
    config.write_text(f"HostKey {host_key}\n{settings}", "ascii")
    sshd = CountingSshd(str(config))
    Scanner(sshd, "/nonexistent").scan()
    assert sshd.asked == (0 if asked == "once" else len(pwd.getpwall()))
