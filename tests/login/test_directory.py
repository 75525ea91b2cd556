"""A host with accounts and keys in LDAP, by SSSD: who gets in there is reported, taken over or kept, and given back.

`scripts/hosts.sh directory` makes the Debian for it; it is skipped where that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.core.hosts import modes, system_users, unmanaged_keys
from keyrack.core.keys import credentials
from tests.login.ldap_directory import COMMAND, HOMES, SETTINGS, LdapDirectory
from tests.login.private_sshd import Key
from tests.login.test_debian_releases import KEYRACK, SERVER, Scene, scene_on, shorten_the_trial
from tests.services import Service
from tests.waiting import wait_until

NAMES = ("kranna", "krhomeless")  # the second has none, and nobody lists either
SETTINGS_OF_SSHD = "cd /etc/ssh && find . -type f -not -path './keyrack/*' | sort | xargs sha256sum; sshd -T"


class OfDirectory:
    """The scene, and for each account of the directory its key there, and one that Keyrack gives it."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.theirs = {name: Key.make(scene.folder / name) for name in NAMES}
        self.ours = {name: Key.make(scene.folder / f"{name}-ours") for name in NAMES}
        self.directory = LdapDirectory(scene.host)

    def gets_in(self, keys: dict[str, Key]) -> list[bool]:
        return [self.scene.host.client.lets_in(keys[name], name) for name in NAMES]

    def go(self, mode: str) -> None:
        """Have the host enforce or observe, and wait for it."""
        modes.set_mode(self.scene.service.instance, KEYRACK, SERVER, mode)
        wait_until(lambda: self.scene.server().facts.get("enforcement") == mode, mode)

    def reported(self, fact: str) -> str:
        return str(self.scene.server().facts.get(fact))


@pytest.fixture
def of(team: Service, tmp_path: Path) -> Iterator[OfDirectory]:
    with scene_on("directory", team, tmp_path, SETTINGS) as scene:
        scene.prepare()
        made = OfDirectory(scene)
        made.directory.begin({name: key.public for name, key in made.theirs.items()})
        yield made


def test_a_host_of_a_directory(of: OfDirectory) -> None:
    run = of.scene.host.run
    assert of.gets_in(of.theirs) == [True, True]
    listed = run("getent passwd")
    assert not [name for name in NAMES if name in listed]
    before = run(SETTINGS_OF_SSHD)
    of.scene.paste()
    wait_until(of.scene.obeyed, "a first report")
    scan_is_reported(of)
    delivers(of)
    is_taken_over(of, before)
    is_chained(of)
    the_server_is_away(of)
    sssd_is_away(of)
    of.scene.agent("uninstall")
    assert run(SETTINGS_OF_SSHD) == before
    assert of.gets_in(of.theirs) == [True, True]


def scan_is_reported(of: OfDirectory) -> None:
    """Whom the directory names is not known, which is said; a key in a home of its domain is found."""
    name, path = NAMES[0], f"{HOMES}/{NAMES[0]}/.ssh"
    run = of.scene.host.run
    run(f"install -d -o {name} -m 700 {path}")
    run(f"echo '{of.scene.by_hand.public}' | install -o {name} /dev/stdin {path}/authorized_keys")

    def found() -> set[tuple[str, str, str]]:
        every = unmanaged_keys.find(of.scene.service.instance, KEYRACK, SERVER, limit=100).items
        return {(one.username, one.path, one.comment) for one in every if one.in_force}

    wait_until(lambda: ("*", COMMAND, "SSSD: keys of its directory") in found(), "the program that names keys")
    wait_until(lambda: name in {username for username, _, _ in found()}, "the key in a home of the domain")
    assert of.scene.server().mode == "auto"
    assert "cannot be listed (nsswitch.conf: sss)" in of.reported("shut_out")
    plan = of.scene.agent("plan")
    assert f"- whoever {COMMAND} names (SSSD: keys of its directory)" in plan
    assert f"- {name}: " in plan


def delivers(of: OfDirectory) -> None:
    """Keys for accounts that nobody lists; no account is made for them."""
    instance = of.scene.service.instance
    for name in NAMES:
        system_users.create(instance, KEYRACK, SERVER, username=name)
        credentials.add(instance, KEYRACK, SERVER, label=name, username=name, public_key=of.ours[name].public)
    wait_until(of.scene.obeyed, "the keys on the host")
    opens: dict[str, object] = {name: {} for name in (*NAMES, "deploy", "root")}
    wait_until(lambda: of.scene.server().facts.get("logins") == opens, "that the keys would open their accounts")
    shorten_the_trial(of.scene)


def is_taken_over(of: OfDirectory, before: str) -> None:
    """Keyrack's keys alone, and back to the byte."""
    assert of.gets_in(of.ours) == [False, False]
    of.go("enforce")
    assert of.gets_in(of.ours) == [True, True]
    assert of.gets_in(of.theirs) == [False, False]
    of.go("observe")
    assert of.scene.host.run(SETTINGS_OF_SSHD) == before
    assert of.gets_in(of.theirs) == [True, True]


def is_chained(of: OfDirectory) -> None:
    """Both let in, which is said; but not by a key that Keyrack took away, whoever names it."""
    file = "/var/lib/keyrack-agent/local.json"
    of.scene.host.run(f"""sed -i 's/"chain_keys_command": false/"chain_keys_command": true/' {file}""")
    of.scene.host.run(f"grep -q '\"chain_keys_command\": true' {file} && systemctl restart keyrack-agent")
    of.go("enforce")
    assert of.gets_in(of.theirs) == of.gets_in(of.ours) == [True, True]
    assert f"AuthorizedKeysCommand {COMMAND} lets in whom it names" in of.scene.agent("status")
    lost, number = of.scene.add("lost")
    of.directory.put_key(NAMES[0], lost.public)
    of.scene.host.client.wait_until_open(lost, NAMES[0])
    credentials.delete(of.scene.service.instance, KEYRACK, SERVER, number)
    of.scene.host.client.wait_until_closed(lost, NAMES[0])
    of.directory.put_key(NAMES[0], of.theirs[NAMES[0]].public)


def the_server_is_away(of: OfDirectory) -> None:
    """SSSD answers of its cache."""
    of.directory.stop()
    assert of.gets_in(of.ours) == [True, True]
    of.scene.add("while-the-server-is-away")
    wait_until(of.scene.obeyed, "the key on the host")
    assert NAMES[0] not in of.scene.host.run("cat /etc/passwd")


def sssd_is_away(of: OfDirectory) -> None:
    """No answer is no "no": no account is made in front of the directory's, enforcing goes on, and it is said."""
    of.scene.host.run("systemctl stop sssd")
    assert of.gets_in(of.ours) == [False, False]
    key, _ = of.scene.add("while-sssd-is-away")
    of.scene.host.client.wait_until_open(key, "deploy")
    wait_until(lambda: "its directory does not answer (nsswitch.conf: sss)" in of.reported("logins"), "what is said")
    wait_until(lambda: f"the account {NAMES[0]} is a directory's" in of.reported("accounts"), "why none is made")
    local = of.scene.host.run("cat /etc/passwd")
    assert not [name for name in NAMES if name in local]
    assert of.reported("enforcement") == "enforce"
    of.directory.start()
    of.scene.host.run("systemctl start sssd")
    of.scene.host.client.wait_until_open(of.ours[NAMES[0]], NAMES[0])
    of.scene.add("with-sssd-back")
    wait_until(lambda: "does not answer" not in of.reported("logins"), "that it answers again")
