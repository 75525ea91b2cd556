"""One call removes a person who is in by every way there is, on hosts and in Git: all of it ends."""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from keyrack.core.keys import grants
from keyrack.ssh.public_key import fingerprint_of
from tests.git.people import Person, Site, start_host
from tests.git.test_transfers import fill, slowly
from tests.login.fleet import Fleet, Host, fleet
from tests.login.private_sshd import USERNAME, Key, strict_folder
from tests.login.test_revocation import has_obeyed, sessions_of
from tests.ports import free_port
from tests.processes import is_alive, pid_in
from tests.services import Service
from tests.waiting import wait_until
from tests.web.test_native import call


class Inside:
    """What a person has open on hosts, as processes of real ssh clients."""

    def __init__(self, key: Key, folder: Path) -> None:
        self._key, self._folder = key, folder
        self.clients: dict[str, subprocess.Popen[bytes]] = {}

    def background(self, host: Host) -> Path:
        """Where the command in the background wrote its number."""
        return self._folder / f"background-{host.server.name}"

    def _socket(self, host: Host) -> str:
        return str(self._folder / f"master-{host.server.name}")

    def shell(self, host: Host) -> None:
        """A shell with a terminal, and a command in the background that has left it."""
        left = f"setsid -f sh -c 'echo $$ > {self.background(host)}; exec sleep 3600' >/dev/null 2>&1"
        self._start("shell", host, f"{left}; exec sleep 3600", ("-tt",))

    def master(self, host: Host) -> None:
        """A connection that is left open for others, which use it without a new login."""
        self._start("ControlMaster", host, None, ("-M", "-N", "-S", self._socket(host)))

    def tunnel(self, host: Host) -> None:
        """A tunnel without a command."""
        self._start("ssh -N -L", host, None, ("-N", "-L", f"127.0.0.1:{free_port()}:127.0.0.1:{host.client.port}"))

    def through_master(self, host: Host) -> int:
        """The exit code of a command over the connection that was left open, where it still is."""
        given = host.client.command(self._key, command="true", extra=("-S", self._socket(host)))
        return subprocess.run(given, check=False, timeout=60, stdin=subprocess.DEVNULL, capture_output=True).returncode

    def _start(self, name: str, host: Host, command: str | None, extra: tuple[str, ...]) -> None:
        given = host.client.command(self._key, command=command or "true", extra=extra)
        self.clients[f"{name} on {host.server.name}"] = subprocess.Popen(
            given[: None if command else -1],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end(self) -> None:
        """End what is left of it."""
        for one in self.clients.values():
            one.kill()
            one.wait(30)
            if one.stdin is not None:
                one.stdin.close()


def logged_in(hosts: Fleet, key: Key, host: Host) -> None:
    """Let a person in on a host by a grant, and wait for it."""
    grants.give_named(hosts.instance, hosts.actor, user="alice", server=host.server.name, system_user=USERNAME)
    host.client.wait_until_open(key)


def ended_at(ends: dict[str, Any], since: float) -> dict[str, float]:
    """After how many seconds each of some things had ended; waits for all of them."""
    at: dict[str, float] = {}

    def all_ended() -> bool:
        for name, over in ends.items():
            if name not in at and over():
                at[name] = time.monotonic() - since
        return len(at) == len(ends)

    wait_until(all_ended, "all that was open to end")
    return at


def test_a_leaver_is_out_everywhere(team: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "people").mkdir()
    with strict_folder() as folder, strict_folder() as place, fleet(team, folder, 4) as hosts:
        site = Site(team, start_host(team, place), tmp_path / "people")
        try:
            _leave(team, site, hosts, tmp_path, capsys)
        finally:
            site.host.stop()


def _leave(team: Service, site: Site, hosts: Fleet, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.repository("acme/site", alice="developer")
    alice = site.person("alice", token="token-of-alice")
    fill(site, alice, "acme/site", 25_000_000)
    key, inside = Key(alice.key), Inside(Key(alice.key), folder)
    *on, off = hosts.hosts
    for host in hosts.hosts:
        logged_in(hosts, key, host)
    off.stop()
    try:
        for host in on:
            inside.shell(host)
            inside.master(host)
            inside.tunnel(host)
        for host in on:
            wait_until(partial(_all_three_in, hosts, inside, host), "the logins that stay in the list")
            assert is_alive(pid_in(inside.background(host)))
        with ThreadPoolExecutor(1) as pool:
            words = ("clone", "-q", alice.url("acme/site"), str(alice.folder / "slow"))
            clone = pool.submit(slowly, alice, "down", *words)
            wait_until(lambda: site.host.running == 1, "the transfer to begin")
            took = _removed(team, site, hosts, inside, on)
            assert clone.result().code != 0
        with capsys.disabled():
            print("\nended after", ", ".join(f"{name}: {seconds:.2f} s" for name, seconds in took.items()))
        _out(site, hosts, alice, key, inside)
    finally:
        inside.end()


def _all_three_in(hosts: Fleet, inside: Inside, host: Host) -> bool:
    """Whether the service knows of each connection to a host, and the one left open for others takes them."""
    return sessions_of(hosts, host) == 3 and inside.through_master(host) == 0


def _removed(team: Service, site: Site, hosts: Fleet, inside: Inside, on: list[Host]) -> dict[str, float]:
    """The one call, and how long all took to end, each kind on each host that is on."""
    going = call(team, "POST", "/people/alice/offboard?preview=true", {}, status=202)
    since = time.monotonic()
    made = call(team, "POST", "/people/alice/offboard", {"reason": "left"}, status=202)
    assert made["gone"] == going["gone"]
    names = [host.server.name for host in on]
    assert sorted(one["server"] for one in made["gone"]["sessions"]) == sorted(3 * names)
    ends: dict[str, Any] = {name: one.poll for name, one in inside.clients.items()}
    ends = {name: (lambda poll=poll: poll() is not None) for name, poll in ends.items()}
    for host in on:
        left = pid_in(inside.background(host))
        ends[f"background on {host.server.name}"] = lambda left=left: not is_alive(left)
    ends["git clone"] = lambda: site.host.running == 0
    took = ended_at(ends, since)
    for host in on:
        wait_until(partial(has_obeyed, hosts, host), "the receipt of a host that is on")
    return took


def _out(site: Site, hosts: Fleet, alice: Person, key: Key, inside: Inside) -> None:
    """Nothing lets the person in; the host that was off refuses at its first login, and the receipt says when."""
    team, (*on, off) = site.service, hosts.hosts
    for host in on:
        assert not host.client.lets_in(key)
        assert inside.through_master(host) != 0
    assert alice.git("ls-remote", alice.url("acme/site")).code != 0
    (one,) = call(team, "GET", "/offboardings")["items"]
    wait_until(
        lambda: all(git["done"] for git in call(team, "GET", f"/offboardings/{one['id']}")["git"]), "the word of Git"
    )
    one = call(team, "GET", f"/offboardings/{one['id']}")
    assert (one["done"], one["words"]) == (False, "done on 3 of 4 servers; not yet on host-3")
    assert [git["stopped"] for git in one["git"]] == [1]
    off.start()
    wait_until(partial(has_obeyed, hosts, off), "the receipt of the host that was off")
    # Its very first login since then.
    assert not off.client.lets_in(key)
    one = call(team, "GET", f"/offboardings/{one['id']}")
    assert one["done"]
    assert [host["server_name"] for host in one["servers"]] == [host.server.name for host in hosts.hosts]
    assert all(host["acknowledged_at"] is not None and host["applied"] >= host["wanted"] for host in one["servers"])
    assert all(host["done"] for host in one["servers"])
    assert max(one["servers"], key=lambda host: str(host["acknowledged_at"]))["server_name"] == "host-3"
    assert fingerprint_of(key.public) in [gone["fingerprint"] for gone in one["gone"]["keys"]]
