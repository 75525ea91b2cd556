"""A host's life under systemd on releases of Debian: each with its own OpenSSH, Python, journal and logind.

Debian 11 has OpenSSH 8.4 and Python 3.9, Debian 12 has 9.2 and 3.11, Debian 13 has 10.0 and 3.13. Debian's testing
release is tried with KEYRACK_LONG=1, where `scripts/hosts.sh forky` made it.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from keyrack.core.hosts import modes, servers, sessions, unmanaged_keys
from keyrack.core.keys import credentials
from keyrack.core.people import actors
from keyrack.model import Server, Session
from keyrack.ssh.public_key import fingerprint_of
from tests.login.debian_host import DebianHost, debian_host
from tests.login.private_sshd import Key, strict_folder
from tests.ports import free_port
from tests.services import Service
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(1500)  # the system may still be being made
OPENSSH = re.compile("OpenSSH_([0-9]+)[.]([0-9]+)")
LONG = bool(os.environ.get("KEYRACK_LONG"))
# Rules for zic(8), and whether they are for sshd alone. Fourteen hours ahead of UTC, eleven behind, and summer time
# that ends in twenty minutes, so that this hour is the first of two.
ZONES = (
    (r"Zone Own 14:00 - A\n", False),
    (r"Zone Own -11:00 - A\n", True),
    (
        r"Rule T {year} only - Jan 1 0:00u 1:00 S\nRule T {year} only - {month} {day} {clock}u 0 -\n"
        r"Zone Own 1:00 T A%s\n",
        False,
    ),
)
KEYRACK = actors.system_actor(1)
SERVER = 1
AGENT = "keyrack-agent"
SNAPSHOT = "cd /etc/ssh && find . -type f | sort | xargs -d '\\n' stat -c '%n %a %U %G %y' && find . -type f | sort \
| xargs -d '\\n' sha256sum; find . -type d | sort"


class Scene:
    """A booted Debian with an account and a key that somebody put there by hand, and the service."""

    def __init__(self, service: Service, host: DebianHost, folder: Path) -> None:
        self.service = service
        self.host = host
        self.by_hand = Key.make(folder / "by-hand")
        self.folder = folder
        self.clients: list[subprocess.Popen[bytes]] = []

    def prepare(self) -> str:
        """The account, its key, and what /etc/ssh is like before anything of ours came."""
        self.host.run("useradd -m -s /bin/bash -p '*' deploy && install -d -o deploy -m 700 /home/deploy/.ssh")
        self.host.run(f"echo '{self.by_hand.public}' > /home/deploy/.ssh/authorized_keys")
        return self.host.run(SNAPSHOT)

    def paste(self) -> str:
        """The line as an operator pastes it."""
        return self.host.run(servers.installation_line(self.service.instance, KEYRACK, SERVER))

    def server(self) -> Server:
        return servers.get(self.service.instance, KEYRACK, SERVER)

    def obeyed(self) -> bool:
        """Whether the host has said that it obeys the newest document."""
        server = self.server()
        return server.applied_revision == server.revision > 0

    def enforces(self) -> bool:
        """Whether the host has said that enforcing is in force."""
        return self.server().facts.get("enforcement") == "enforce"

    def add(self, name: str, expires_at: datetime | None = None) -> tuple[Key, int]:
        """A fresh key on the account."""
        key = Key.make(self.folder / name)
        added = credentials.add(
            self.service.instance,
            KEYRACK,
            SERVER,
            label=name,
            username="deploy",
            public_key=key.public,
            expires_at=expires_at,
        )
        return key, added.id

    def stay(self, key: Key) -> subprocess.Popen[bytes]:
        """A login that stays, with a command of its own."""
        given = self.host.client.command(key, "deploy", "exec sleep 4242")
        client = subprocess.Popen(given, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.clients.append(client)
        return client

    def sessions(self) -> tuple[Session, ...]:
        return tuple(sessions.find(self.service.instance, KEYRACK, SERVER, limit=40).items)

    def agent(self, command: str) -> str:
        return self.host.run(f"{AGENT} {command}", check=False)

    def close(self) -> None:
        for client in self.clients:
            client.kill()
            client.wait()


@contextmanager
def scene_on(release: str, team: Service, tmp_path: Path, settings: str) -> Iterator[Scene]:
    with strict_folder() as folder, debian_host(release, folder, free_port(), settings) as host:
        made = Scene(team, host, tmp_path)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture(params=["bullseye", "bookworm", "trixie", *(["forky"] if LONG else [])])
def scene(request: pytest.FixtureRequest, team: Service, tmp_path: Path) -> Iterator[Scene]:
    # All these logins, refused ones too, come from one address, which the sshd of Debian 13 and newer would shut out.
    settings = "PerSourcePenalties no\n" if request.param in ("trixie", "forky") else ""
    with scene_on(request.param, team, tmp_path, settings) as made:
        yield made


def greets(port: int) -> bool:
    """Whether sshd answers this address as it should."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        return connection.recv(64).startswith(b"SSH-2.0-")


def test_failing_logins_do_not_undo_enforcing(team: Service, tmp_path: Path) -> None:
    """sshd of Debian 13 answers nobody at an address where logins failed: that is no broken sshd."""
    with scene_on("trixie", team, tmp_path, "PerSourcePenalties authfail:300s\n") as scene:
        scene.prepare()
        scene.paste()
        wait_until(scene.obeyed, "a first report")
        scene.add("laptop")
        wait_until(scene.obeyed, "the key on the host")
        # Long enough that it is seen, and that a login falls into it, also on a busy machine.
        shorten_the_trial(scene, seconds=20)
        modes.set_mode(scene.service.instance, KEYRACK, SERVER, "enforce")
        wait_until(lambda: "enforcing is on trial" in scene.agent("status"), "the trial")
        # Only now: sshd forgets whom it shuts out when it reads its settings.
        scene.host.client.login(Key.make(tmp_path / "stranger"), "deploy")
        wait_until(lambda: not greets(scene.host.client.port), "an address that is shut out")
        wait_until(scene.enforces, "the end of the trial")
        assert "this host enforces" in scene.agent("status")
        assert not greets(scene.host.client.port)


def test_a_host_is_enrolled_enforced_and_uninstalled(scene: Scene) -> None:
    host, client = scene.host, scene.host.client
    before = scene.prepare()
    scene.paste()
    observes(scene)
    enforce(scene)
    who_is_in_is_known_and_ended(scene)
    the_agent_comes_back(scene)
    ends_bite_without_anybody(scene)
    revoked_while_off(scene)

    scene.agent("uninstall")
    assert host.run("systemctl list-unit-files 'keyrack*' --no-legend", check=False).strip() == ""
    assert host.run(SNAPSHOT) == before
    left = "/var/lib/keyrack-agent /usr/local/lib/keyrack-agent /usr/local/bin/keyrack-agent"
    assert host.run(f"ls -A {left} 2>/dev/null", check=False) == ""
    assert client.lets_in(scene.by_hand, "deploy")


def observes(scene: Scene) -> None:
    """It runs under systemd, from boot on, and says what it found; nobody's way in has changed."""
    host = scene.host
    assert host.run("systemctl is-active keyrack-agent; systemctl is-enabled keyrack-agent") == "active\nenabled\n"
    wait_until(scene.obeyed, "a first report")
    server = scene.server()
    assert (server.mode, server.os_version) == (
        "auto",
        host.run(". /etc/os-release; echo ${VERSION_ID:-$(uname -r)}").strip(),
    )

    wait_until(lambda: found_by_hand(scene), "the key that somebody put there by hand")
    assert found_by_hand(scene) == [("deploy", "/home/deploy/.ssh/authorized_keys")]
    assert host.client.lets_in(scene.by_hand, "deploy")


def found_by_hand(scene: Scene) -> list[tuple[str, str]]:
    """Where the service knows the key of that somebody to stand."""
    page = unmanaged_keys.find(scene.service.instance, KEYRACK, SERVER).items
    return [(one.username, one.path) for one in page if one.fingerprint == fingerprint_of(scene.by_hand.public)]


def enforce(scene: Scene) -> None:
    """Keyrack's keys alone, after a trial that is shortened here by the host's own file."""
    host = scene.host
    key, _ = scene.add("laptop")
    shorten_the_trial(scene)
    plan = scene.agent("plan")
    assert fingerprint_of(scene.by_hand.public) in plan
    modes.set_mode(scene.service.instance, KEYRACK, SERVER, "enforce")
    host.client.wait_until_open(key, "deploy")
    host.client.wait_until_closed(scene.by_hand, "deploy")
    assert "AuthorizedKeysCommand" not in host.run("journalctl -q -t sshd -t sshd-session")
    wait_until(scene.enforces, "the end of the trial")
    assert "this host enforces" in scene.agent("status")
    assert "sshd obeys the document for every account" in scene.agent("doctor")


def shorten_the_trial(scene: Scene, seconds: int = 5) -> None:
    """By the file that is the host's own."""
    file = "/var/lib/keyrack-agent/local.json"
    wanted = f'"trial_seconds": {seconds}.0'
    scene.host.run(f"""sed -i 's/"trial_seconds": 60.0/{wanted}/' {file} && grep -q '{wanted}' {file}""")
    scene.host.run("systemctl restart keyrack-agent")


def who_is_in_is_known_and_ended(scene: Scene) -> None:
    """The journal names the key that signed; taking that key away ends the login, its command too."""
    key, credential = scene.add("visitor")
    scene.host.client.wait_until_open(key, "deploy")
    client = scene.stay(key)
    wait_until(lambda: fingerprint_of(key.public) in [one.fingerprint for one in scene.sessions()], "the login")
    wait_until(lambda: "sleep 4242" in scene.host.run("ps -eo args"), "its command")
    credentials.delete(scene.service.instance, KEYRACK, SERVER, credential)
    client.wait(60)
    assert not scene.host.client.lets_in(key, "deploy")
    assert "sleep 4242" not in scene.host.run("ps -eo args")
    wait_until(lambda: not scene.sessions(), "a list without it")


def the_agent_comes_back(scene: Scene) -> None:
    """systemd starts a killed agent again; what was asked meanwhile is done."""
    scene.host.run("systemctl kill --signal=KILL keyrack-agent")
    key, _ = scene.add("after-the-kill")
    scene.host.client.wait_until_open(key, "deploy")


def ends_bite_without_anybody(scene: Scene) -> None:
    """A key with an end opens, and its end holds while the agent is dead, wherever the host is: also now that an hour
    comes twice, as summer time ends.
    """
    version = OPENSSH.search(scene.host.run("/usr/sbin/sshd -V", check=False))
    assert version is not None
    in_local_time = (int(version.group(1)), int(version.group(2))) < (9, 1)
    # An end in UTC means the same everywhere; in local time each zone is another case, and so is one of sshd alone.
    zones = ZONES if in_local_time or LONG else ZONES[-1:]
    for number, (rules, unit) in enumerate(zones):
        set_zone(scene, rules, of_sshd_alone=unit)
        said = scene.agent("doctor")
        assert ("in local time" in said) is in_local_time, said
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=8)
        key, _ = scene.add(f"short-{number}", expires_at=end)
        wait_until(scene.obeyed, "the key on the host")
        scene.host.run("systemctl kill --signal=KILL keyrack-agent; systemctl stop keyrack-agent")
        assert scene.host.client.lets_in(key, "deploy"), (rules, said)
        time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds() + 0.1))
        assert not scene.host.client.lets_in(key, "deploy"), rules
        scene.host.run("systemctl start keyrack-agent")
    scene.host.run("rm -rf /etc/systemd/system/ssh.service.d; ln -sf /usr/share/zoneinfo/Etc/UTC /etc/localtime")
    scene.host.run("systemctl daemon-reload; systemctl restart ssh keyrack-agent")


def set_zone(scene: Scene, rules: str, *, of_sshd_alone: bool) -> None:
    """Have the host, or its sshd alone, be in a zone of these rules."""
    soon = datetime.now(UTC) + timedelta(minutes=20)
    rules = rules.format(year=soon.year, month=f"{soon:%b}", day=soon.day, clock=f"{soon:%H:%M}")
    scene.host.run(f"printf '%b' '{rules}' >/tmp/zone && /usr/sbin/zic -d /tmp/zones /tmp/zone")
    drop_in = "/etc/systemd/system/ssh.service.d"
    if of_sshd_alone:
        scene.host.run("cp /tmp/zones/Own /etc/zone-of-sshd && ln -sf /usr/share/zoneinfo/Etc/UTC /etc/localtime")
        scene.host.run(
            f"mkdir -p {drop_in} && printf '[Service]\nEnvironment=TZ=:/etc/zone-of-sshd\n' >{drop_in}/z.conf"
        )
    else:
        scene.host.run(f"rm -rf {drop_in}; rm -f /etc/localtime; cp /tmp/zones/Own /etc/localtime")
    scene.host.run("systemctl daemon-reload; systemctl restart ssh; systemctl restart keyrack-agent")
    wait_until(lambda: "the agent is running" in scene.agent("status"), "the agent")


def revoked_while_off(scene: Scene) -> None:
    """A host that is off during a revocation refuses at the first login after contact; the agent starts at boot."""
    key, credential = scene.add("lost")
    kept, _ = scene.add("kept")
    scene.host.client.wait_until_open(key, "deploy")
    scene.host.client.wait_until_open(kept, "deploy")
    scene.host.shut_down()
    credentials.delete(scene.service.instance, KEYRACK, SERVER, credential)
    assert not scene.obeyed()
    scene.host.boot()
    wait_until(scene.obeyed, "the receipt")
    assert not scene.host.client.lets_in(key, "deploy")
    assert scene.host.client.lets_in(kept, "deploy")
    assert "this host enforces" in scene.agent("status")
