"""An account that getpwnam knows and getpwall does not list: its keys are found, taken over, and it still logs in."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.core.hosts import modes, servers, system_users, unmanaged_keys
from keyrack.core.keys import credentials
from keyrack.model import Server
from tests.login.contained_host import Machine, machine
from tests.login.observed_host import owner
from tests.login.private_sshd import Key, strict_folder
from tests.login.unlisted_accounts import ALIAS, HOME, NAME, install, write_keys
from tests.ports import free_port
from tests.services import Service, running, settings_for
from tests.waiting import wait_until

SERVER = 1
AGENT = f"env PYTHONPATH={Path(__file__).parents[2] / 'src'} {shlex.quote(sys.executable)} -m keyrack.agent"


@pytest.fixture
def service(team_folder: Path, tmp_path: Path) -> Iterator[Service]:
    """A service with a server that nobody has enrolled."""
    data = tmp_path / "data"
    shutil.copytree(team_folder, data)
    with running(settings_for(data, "")) as service:
        yield service


@pytest.fixture
def host(service: Service, tmp_path: Path) -> Iterator[Machine]:
    """A host with an account of a directory, observed by the real agent."""
    with strict_folder() as folder, machine(folder, free_port()) as host:
        install(host, folder)
        write_keys(host, f"{Key.make(tmp_path / 'hand').public} by hand")
        token = servers.invite(service.instance, owner(), SERVER)
        given = f"--url={service.url} --drop-in=auto --mode=observe --allow-accounts"
        host.run(f"KEYRACK_AGENT_TOKEN={token} {AGENT} enroll {given}")
        host.run('sed -i \'s/"trial_seconds": 60.0/"trial_seconds": 2/\' /var/lib/keyrack-agent/local.json')
        start_agent(host)
        yield host


def start_agent(host: Machine) -> None:
    host.run(f"setsid {AGENT} run --sshd-log=/var/log/auth.log >/var/log/agent 2>&1 </dev/null & echo $! >/run/agent")


def test_an_account_that_no_list_has_is_taken_over(service: Service, host: Machine, tmp_path: Path) -> None:
    instance, hand = service.instance, Key(tmp_path / "hand")

    def server() -> Server:
        return servers.get(instance, owner(), SERVER)

    def found() -> list[int]:
        every = unmanaged_keys.find(instance, owner(), SERVER, limit=100).items
        return [one.id for one in every if (one.username, one.comment) == (NAME, "by hand") and one.in_force]

    assert NAME not in host.run("getent passwd")
    assert host.client.lets_in(hand, NAME)
    wait_until(found, "the key that sshd takes")
    wait_until(lambda: "cannot be listed (nsswitch.conf: krcorp)" in str(server().facts.get("scan")), "what is said")
    assert NAME in host.run(f"{AGENT} plan")
    (key,) = found()
    unmanaged_keys.accept(instance, owner(), SERVER, key)
    modes.set_mode(instance, owner(), SERVER, "enforce")
    wait_until(lambda: server().facts.get("enforcement") == "enforce", "enforcing in force")
    rogue = Key.make(tmp_path / "rogue")
    write_keys(host, f"{rogue.public} rogue")
    assert host.client.lets_in(hand, NAME)
    assert not host.client.lets_in(rogue, NAME)

    # sshd goes by the name that the directory answers, and looks for no file of another one.
    system_users.create(instance, owner(), SERVER, username=ALIAS)
    credentials.add(instance, owner(), SERVER, label="alias", username=ALIAS, public_key=rogue.public)
    words = f"this host knows it as {NAME}"
    wait_until(lambda: words in str(server().facts.get("logins", {}).get(ALIAS)), words)
    assert not host.client.lets_in(rogue, ALIAS)


def test_an_account_without_a_home_is_found_by_its_file(service: Service, host: Machine, tmp_path: Path) -> None:
    """Its keys lie in a folder of the host's, as its home is made by its first login; it is then taken over."""
    instance, hand = service.instance, Key(tmp_path / "hand")
    host.run(f"rm -r {HOME} && mkdir -m 755 /etc/ssh/keys && echo '{hand.public} by file' > /etc/ssh/keys/{NAME}")
    host.run("echo 'AuthorizedKeysFile /etc/ssh/keys/%u' >> /etc/ssh/sshd_config && kill -HUP $(cat /run/sshd.pid)")

    def found() -> list[int]:
        every = unmanaged_keys.find(instance, owner(), SERVER, limit=100).items
        return [one.id for one in every if (one.username, one.comment, one.in_force) == (NAME, "by file", True)]

    wait_until(lambda: host.client.lets_in(hand, NAME), "sshd's new settings")
    host.run("kill $(cat /run/agent); rm -f /var/lib/keyrack-agent/seen.json; : > /var/log/auth.log")
    start_agent(host)
    wait_until(found, "the key that sshd takes")
    unmanaged_keys.accept(instance, owner(), SERVER, found()[0])
    modes.set_mode(instance, owner(), SERVER, "enforce")
    wait_until(lambda: servers.get(instance, owner(), SERVER).facts.get("enforcement") == "enforce", "enforcing")
    assert host.client.lets_in(hand, NAME)


def test_a_rule_for_an_account_that_no_list_has_counts_no_more(service: Service, host: Machine, tmp_path: Path) -> None:
    """sshd is asked about those alone that are listed, and Keyrack's settings stand before any rule."""
    instance, hand, rogue = service.instance, Key(tmp_path / "hand"), Key.make(tmp_path / "rogue")
    rule = f"Match User {NAME}\n  AuthorizedKeysFile /etc/ssh/rule/%u\n  TrustedUserCAKeys /etc/ssh/rule/authority\n"
    host.run(f"mkdir -m 755 /etc/ssh/rule && echo '{hand.public} by rule' > /etc/ssh/rule/{NAME}")
    host.run(f"printf '%s' '{rule}' >> /etc/ssh/sshd_config && kill -HUP $(cat /run/sshd.pid); kill $(cat /run/agent)")
    write_keys(host, "")
    wait_until(lambda: host.client.lets_in(hand, NAME), "sshd's new settings")
    start_agent(host)

    def found() -> list[int]:
        every = unmanaged_keys.find(instance, owner(), SERVER, limit=100).items
        return [one.id for one in every if (one.username, one.comment, one.in_force) == (NAME, "by rule", True)]

    wait_until(found, "the key that sshd takes")
    unmanaged_keys.accept(instance, owner(), SERVER, found()[0])
    modes.set_mode(instance, owner(), SERVER, "enforce")
    wait_until(lambda: servers.get(instance, owner(), SERVER).facts.get("enforcement") == "enforce", "enforcing")
    host.run(f"echo '{rogue.public} rogue' >> /etc/ssh/rule/{NAME}")
    assert host.client.lets_in(hand, NAME)
    assert not host.client.lets_in(rogue, NAME)


def test_no_account_is_made_under_the_name_of_one_of_a_directory(service: Service, host: Machine) -> None:
    """A directory that is away knows nobody: an account of the same name would keep everybody out once it is back."""
    instance = service.instance

    def account_state() -> dict[str, object]:
        accounts = servers.get(instance, owner(), SERVER).facts.get("accounts", {})
        return accounts.get(NAME, {}) if isinstance(accounts, dict) else {}

    system_users.create(instance, owner(), SERVER, username=NAME)
    wait_until(lambda: account_state() == {"exists": True}, "that the host has it")
    host.run("kill $(cat /run/agent); sed -i 's/^passwd:.*/passwd: files krgone/' /etc/nsswitch.conf")
    wait_until(lambda: not host.run(f"getent passwd {NAME}", check=False), "a directory that is away")
    start_agent(host)
    wait_until(lambda: "directory's" in str(account_state().get("refused")), "what is said")
    assert NAME not in host.run("cat /etc/passwd")
