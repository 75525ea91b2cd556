"""Machines that are copies: noticed at once, frozen, told apart from those that start again, settled by a command."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from keyrack.core.audit import events
from keyrack.core.hosts import copies, enrolment, servers, status
from keyrack.core.keys import credentials, receipts, revocation
from keyrack.core.people import actors
from keyrack.ssh.public_key import fingerprint_of
from tests.agent.enrolled_host import EnrolledHost
from tests.core.keys_for_tests import fresh_line
from tests.services import Service
from tests.waiting import wait_until


class Machines:
    """Hosts at a real service, run by the agent's real command."""

    def __init__(self, service: Service, folder: Path, stack: ExitStack) -> None:
        self.service, self.instance, self.folder = service, service.instance, folder
        self.actor = actors.system_actor(1)
        self._stack = stack
        self._count = 0

    def enrol(self, server_id: int, host: EnrolledHost | None = None) -> EnrolledHost:
        token = servers.invite(self.instance, self.actor, server_id)
        host, more = (host, ["--replace"]) if host else (EnrolledHost(self._place()), [])
        environment = {"KEYRACK_AGENT_URL": self.service.url, "KEYRACK_AGENT_TOKEN": token}
        ended = host.agent("enroll", *more, environment=environment)
        assert ended.returncode == 0, ended.stderr
        return host

    def copy(self, host: EnrolledHost) -> EnrolledHost:
        """The agent's folder on another machine; its key files lie elsewhere, as this is really the same one."""
        copy = EnrolledHost(self._place())
        shutil.copytree(host.state, copy.state)
        copy.state.chmod(0o700)
        path = copy.state / "enrolment.json"
        fields = json.loads(path.read_text())
        path.write_text(json.dumps({**fields, "keys_folder": str(copy.keys), "revoked_keys": str(copy.revoked_keys)}))
        return copy

    def start(self, host: EnrolledHost) -> subprocess.Popen[bytes]:
        log = (host.folder / "log").open("ab")
        running = subprocess.Popen(host.command("run"), stdout=log, stderr=log)
        log.close()
        self._stack.callback(end, running)
        return running

    def add_key(self) -> str:
        line = fresh_line()
        credentials.add(self.instance, self.actor, 1, label=line[-9:], username="root", public_key=line)
        return line.split()[1]

    def is_noticed(self) -> bool:
        return servers.get(self.instance, self.actor, 1).copied_at is not None

    def alarms(self) -> list[str]:
        found = events.find(self.instance, self.actor, offset=0, limit=100).items
        return [event.summary for event in found if event.level == "alarm"]

    def _place(self) -> Path:
        self._count += 1
        place = self.folder / f"machine-{self._count}"
        place.mkdir()
        return place


def end(running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGCONT)
    running.kill()
    running.wait(10)


def has(host: EnrolledHost, key: str) -> bool:
    files = host.files() if host.keys.exists() else {}
    return any(key.encode() in data for name, data in files.items() if name != "revoked")


@pytest.fixture
def machines(team: Service, folder: Path) -> Iterator[Machines]:
    with ExitStack() as stack:
        yield Machines(team, folder, stack)


def test_a_copy_is_noticed_and_neither_is_served_until_it_has_a_name_of_its_own(machines: Machines) -> None:
    first = machines.enrol(1)
    machines.start(first)
    old = machines.add_key()
    gone = machines.add_key()
    wait_until(lambda: has(first, old) and has(first, gone), "the first keys")
    copy = machines.copy(first)
    running = machines.start(copy)
    wait_until(machines.is_noticed, "the copy to be noticed")
    (alarm,) = machines.alarms()
    assert "two machines use the identity of web-1" in alarm
    assert "keyrack hosts copy-gone 1" in alarm

    new = machines.add_key()
    revocation.revoke_everywhere(machines.instance, machines.actor, fingerprint_of(f"ssh-ed25519 {gone}"))
    found = receipts.of_key(machines.instance, machines.actor, fingerprint_of(f"ssh-ed25519 {gone}"))
    assert not found.done
    assert "(two machines use its identity)" in found.words
    held = status.of(machines.instance, servers.get(machines.instance, machines.actor, 1))
    assert held.state == "two machines"
    wait_until(lambda: "Two machines" in (copy.folder / "log").read_text(), "the copy to say why")
    assert not has(first, new)
    assert not has(copy, new)
    assert has(first, old), "nobody is locked out"

    end(running)
    other = servers.create(machines.instance, machines.actor, name="other", address="192.0.2.7")
    machines.enrol(other.id, copy)
    machines.start(copy)
    wait_until(lambda: has(first, new), "the first one's new key", seconds=30)
    assert not machines.is_noticed()
    assert not has(copy, new)
    assert not has(first, gone)


def test_an_agent_that_starts_again_is_no_copy(machines: Machines) -> None:
    host = machines.enrol(1)
    for _ in range(3):
        running = machines.start(host)
        key = machines.add_key()
        wait_until(lambda key=key: has(host, key), "the key")  # type: ignore[misc]
        end(running)
    assert not machines.is_noticed()


def test_a_machine_copied_while_it_ran_begins_another_run(machines: Machines) -> None:
    secret = enrolled(machines)
    assert ask(machines, secret, header(number=1)).status_code == 200
    assert ask(machines, secret, header(number=2)).status_code == 200
    again = ask(machines, secret, header(number=2))
    assert (again.status_code, again.json()["tell"]) == (409, "run")
    assert ask(machines, secret, header(run="b" * 16)).status_code == 200
    wait_until(lambda: ask(machines, secret, header(number=3)).status_code != 503, "what is late to be over")
    assert ask(machines, secret, header(number=4)).status_code == 409
    assert ask(machines, secret, header(run="b" * 16, number=2)).status_code == 409
    assert machines.is_noticed()
    copies.settle(machines.instance, machines.actor, 1)
    assert ask(machines, secret, header(run="b" * 16, number=3)).status_code == 200


@pytest.mark.parametrize(
    ("after", "is_copy", "said"),
    [
        ({"boot": "e" * 16, "starts": 2}, False, ""),
        ({"boot": "e" * 16, "starts": 1}, False, "began from an earlier state"),
        ({"boot": "e" * 16, "starts": 2, "keys": "e" * 16}, False, "other host keys"),
        ({"boot": "e" * 16, "starts": 2, "machine": "e" * 16}, False, "another machine id"),
        ({"boot": "e" * 16, "starts": 2, "machine": "e" * 16, "keys": "e" * 16}, True, "two machines"),
        ({"boot": "e" * 16, "starts": 2, "machine": "", "keys": "e" * 16}, False, ""),
    ],
)
def test_a_reboot_or_a_snapshot_is_not_taken_for_a_copy(
    machines: Machines, after: dict[str, Any], is_copy: bool, said: str
) -> None:
    secret = enrolled(machines)
    assert ask(machines, secret, header()).status_code == 200
    assert ask(machines, secret, header(run="b" * 16, **after)).status_code == (409 if is_copy else 200)
    assert machines.is_noticed() == is_copy
    summaries = [event.summary for event in events.find(machines.instance, machines.actor, limit=100).items]
    assert any(said in summary for summary in summaries)
    assert is_copy or any("earlier state" in summary for summary in summaries) == ("earlier state" in said)


def enrolled(machines: Machines) -> str:
    token = servers.invite(machines.instance, machines.actor, 1)
    return enrolment.enrol(machines.instance, token, {}, address="192.0.2.1").secret


def header(run: str = "a" * 16, number: int = 1, **more: Any) -> str:
    reported = {"boot": "b" * 16, "machine": "c" * 16, "keys": "d" * 16, "starts": 1, **more}
    marks = "; ".join(f"{name}={reported[name]}" for name in ("boot", "machine", "keys", "starts"))
    return f"run={run}; {marks}; lane=follower; number={number}; name=web-1"


def ask(machines: Machines, secret: str, sender: str) -> Any:
    headers = {"Authorization": f"Bearer {secret}", "Keyrack-Machine": sender}
    return machines.service.call("GET", "/agent/v1/document?revision=0&wait=0", headers=headers)
