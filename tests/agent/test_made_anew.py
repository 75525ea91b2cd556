"""Accounts that are removed and made again under their name: real useradd, userdel, sshd and agent."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.agent.state import StateFolder
from keyrack.agent.system.accounts import Accounts
from keyrack.agent.system.local import Local
from keyrack.protocol.host_document import AuthorizedKey, DesiredAccount
from tests.agent.small_service import SmallService
from tests.agent.watched_host import enrolled
from tests.login.observed_host import accounts, remove_accounts
from tests.login.private_sshd import Key
from tests.waiting import wait_until

NAME = "kranew"
OLD = DesiredAccount(True, "$6$saltsalt$" + "a" * 86, True)
GONE = DesiredAccount(False)
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("useradd") is None, reason="this test creates accounts: it needs root and useradd"
)


@pytest.fixture
def state(folder: Path) -> Iterator[StateFolder]:
    with accounts(()):
        remove_accounts((NAME,))
        found = StateFolder.open(str(folder / "agent"), create=True)
        yield found
        found.folder.close()
        remove_accounts((NAME,))


def of(state: StateFolder) -> Accounts:
    """What an agent that starts now knows of accounts."""
    return Accounts(state, Local(allow_accounts=True))


def password() -> str:
    """As /etc/shadow has it."""
    lines = Path("/etc/shadow").read_text("utf-8").splitlines()
    return next(line.split(":")[1] for line in lines if line.startswith(f"{NAME}:"))


def by_hand(*words: str) -> None:
    """What the host's administrator does."""
    subprocess.run(words, check=True, capture_output=True)


def test_an_account_that_the_agent_makes_again_has_its_password_and_a_key_pair(state: StateFolder) -> None:
    made = of(state)
    assert made.put({NAME: OLD}) == []
    wait_until(lambda: made.put({NAME: OLD}) == [] and not made.waiting, "a key pair")
    first = made.facts({NAME: OLD})[NAME]["deployment_key"]
    by_hand("userdel", "-r", NAME)
    made.put({NAME: OLD})
    wait_until(lambda: made.put({NAME: OLD}) == [] and not made.waiting, "another key pair")
    assert password() == OLD.password_hash
    assert made.facts({NAME: OLD})[NAME]["deployment_key"] != first


@pytest.mark.parametrize("seen_away", [True, False], ids=["seen away", "another number"])
def test_an_account_of_somebody_else_is_not_removed(state: StateFolder, seen_away: bool) -> None:
    of(state).put({NAME: DesiredAccount(True)})
    number = pwd.getpwnam(NAME).pw_uid
    by_hand("userdel", "-r", NAME)
    if seen_away:
        assert of(state).put({NAME: GONE}) == []
    by_hand("useradd", "-m", "-u", str(number if seen_away else number + 1), NAME)
    for _ in range(2):
        words = of(state).put({NAME: GONE})
        assert words == [f"the account {NAME} was not made by Keyrack, so it stays; remove it by hand"]
    assert pwd.getpwnam(NAME)


def test_an_account_made_again_under_its_name_is_reported(folder: Path, service: SmallService, tmp_path: Path) -> None:
    key = Key.make(tmp_path / "key")
    with accounts((NAME,)), enrolled(folder, service) as watched:
        watched.publish({NAME: [AuthorizedKey(key.public)]})
        watched.kill_agent()
        number = pwd.getpwnam(NAME).pw_uid
        by_hand("userdel", "-f", "-r", NAME)
        by_hand("useradd", "-m", "-p", "*", "-u", str(number + 1), NAME)
        watched.start_agent()
        words = f"the account {NAME} has the number {number + 1} now, and had {number}"

        def problem_words() -> list[str]:
            problems = [one for report in list(service.reports) for one in report.get("problems", ())]
            return [one for one in problems if one.startswith(words)]

        wait_until(lambda: len(problem_words()) == 1, words)
        assert watched.client.lets_in(key, NAME)
        watched.publish({NAME: [AuthorizedKey(key.public)]})
        assert len(problem_words()) == 1
