"""Key files that sshd cannot read with the rights of their account: real sshd and ssh meet what the agent tells."""

from __future__ import annotations

import os
import pwd
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.small_service import SmallService
from tests.agent.watched_host import Watched, enrolled
from tests.login.observed_host import accounts
from tests.login.private_sshd import USERNAME, Key
from tests.waiting import wait_until

NAME = "krshut"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root's sshd lets other accounts in")


@pytest.fixture
def watched(folder: Path, service: SmallService) -> Iterator[Watched]:
    with accounts((NAME,)), enrolled(folder, service) as found:
        yield found


def shut_by_mode(watched: Watched) -> Callable[[], None]:
    """As `chmod 700 /etc/ssh` does; answers what undoes it."""
    above = watched.host.keys.parent
    above.chmod(0o700)
    return lambda: above.chmod(0o755)


def shut_by_access_list(watched: Watched) -> Callable[[], None]:
    """As `setfacl -m u:krshut:- FILE` does."""
    path = watched.host.keys / NAME
    entries = [(1, 6, -1), (2, 0, pwd.getpwnam(NAME).pw_uid), (4, 4, -1), (16, 4, -1), (32, 4, -1)]
    rights = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", rights)
    except OSError:
        pytest.skip("this file system has no access lists")
    return lambda: os.removexattr(path, "system.posix_acl_access")


def reported_logins(watched: Watched) -> dict[str, Any]:
    """What the last report that has it says of logins."""
    found: list[dict[str, Any]] = [
        report["facts"]["logins"] for report in list(watched.service.reports) if "logins" in report.get("facts", {})
    ]
    return found[-1] if found else {}


@pytest.mark.parametrize("shut", [shut_by_mode, shut_by_access_list])
def test_a_key_file_that_its_account_may_not_read_opens_nothing_and_is_reported(
    watched: Watched, shut: Callable[[Watched], Callable[[], None]], tmp_path: Path
) -> None:
    key = Key.make(tmp_path / "key")
    users = {NAME: [AuthorizedKey(key.public)], USERNAME: [AuthorizedKey(key.public)]}
    watched.publish(users)
    wait_until(lambda: reported_logins(watched) == {NAME: {}, USERNAME: {}}, "words of logins")
    assert watched.client.lets_in(key, NAME)
    undo = shut(watched)
    assert not watched.client.lets_in(key, NAME)
    assert watched.client.lets_in(key)
    ended = watched.host.agent("doctor")
    assert f"no key opens the account {NAME}: sshd cannot read its file of keys" in ended.stdout
    assert ended.returncode == 1
    watched.publish(users)
    wait_until(lambda: "cannot read" in reported_logins(watched)[NAME].get("why", ""), "words of the file")
    assert reported_logins(watched)[USERNAME] == {}
    undo()
    watched.publish(users)
    wait_until(lambda: reported_logins(watched) == {NAME: {}, USERNAME: {}}, "words of logins again")
    assert watched.client.lets_in(key, NAME)


def test_the_folder_of_keys_gets_its_rights_back_for_every_account(watched: Watched, tmp_path: Path) -> None:
    key = Key.make(tmp_path / "key")
    users = {NAME: [AuthorizedKey(key.public)]}
    watched.publish(users)
    watched.host.keys.chmod(0o700)
    assert not watched.client.lets_in(key, NAME)
    watched.publish(users)
    wait_until(lambda: watched.client.lets_in(key, NAME), "a login")
    assert watched.host.keys.stat().st_mode & 0o777 == 0o755
