"""Which sshds of this machine are known, and which are not: real ones, on real ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyrack.agent.desired_state import DesiredState
from keyrack.agent.keys import unmanaged_keys
from keyrack.agent.keys.unmanaged_keys import Scanner
from keyrack.agent.sshd import listening, settings
from keyrack.agent.sshd.host_keys import HostKeyScan
from keyrack.agent.sshd.listening import Listener
from keyrack.agent.sshd.read_settings import UNREAD
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.state import Enrolment, StateFolder
from keyrack.agent.system import local, programs
from keyrack.private_sshd import ADDRESS
from keyrack.protocol.host_document import HostDocument
from keyrack.ssh.public_key import fingerprint_of
from tests.login.private_sshd import USERNAME, Key, private_sshd, sshd_path, strict_folder
from tests.ports import free_port
from tests.waiting import wait_until

# $0: a folder for it, where all of the machine's folders are mounted.
BELOW_ANOTHER_ROOT = """set -e
mount -t tmpfs tmpfs "$0"
for one in /*; do
    if [ -L "$one" ]; then cp -a "$one" "$0$one"; continue; fi
    if [ -d "$one" ]; then mkdir "$0$one"; mount --rbind "$one" "$0$one"; fi
done
exec chroot "$0" "$@"
"""


def test_an_sshd_with_settings_of_its_own_is_found_and_a_forwarded_port_is_not_taken_for_one(tmp_path: Path) -> None:
    key, forwarded = Key.make(tmp_path / "key"), free_port()
    with (
        strict_folder() as folder,
        private_sshd(folder / "one") as (one, client),
        private_sshd(folder / "two") as (two, _),
    ):
        (one.keys / USERNAME).write_text(f"{key.public}\n", "ascii")
        known = Sshd(str(one.config)).listeners()
        assert [listener.port for listener in known] == [one.port]
        forwarding = subprocess.Popen(
            client.command(key, USERNAME, "sleep 60", ["-R", f"127.0.0.1:{forwarded}:127.0.0.1:9"]),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: _answers(forwarded), "the forwarded port")
            ports = {listener.port for listener in listening.beside(known)}
            assert two.port in ports
            assert not ports & {one.port, forwarded}
        finally:
            forwarding.kill()
            forwarding.wait()


def test_the_port_is_reported_also_by_a_host_without_ssh_keyscan(monkeypatch: pytest.MonkeyPatch) -> None:
    real = programs.find
    monkeypatch.setattr(programs, "find", lambda name: None if name == "ssh-keyscan" else real(name))
    with strict_folder() as folder, private_sshd(folder / "one") as (one, _):
        scan = HostKeyScan(Sshd(str(one.config)))
        assert scan.keys() is None
        assert scan.port == one.port
        # One that does not listen for a moment has not moved.
        one.stop()
        wait_until(lambda: scan.keys() is None and not Sshd(str(one.config)).greets(), "an sshd that is down")
        assert scan.port == one.port


def test_the_port_is_in_the_first_report_of_an_applied_document() -> None:
    with strict_folder() as folder, private_sshd(folder / "one") as (one, _):
        memory = StateFolder.open(str(folder / "agent"), create=True)
        local.write(memory, local.Local())
        words = dict.fromkeys(("url", "host", "secret", "signing_key", "server_name"), "h")
        places = {"keys_folder": str(one.keys), "revoked_keys": str(folder / "revoked"), "sshd_config": str(one.config)}
        state = DesiredState(memory, Enrolment(**words, **places), print)
        # As a change comes: keys are looked for in a quiet moment after it.
        state.put(HostDocument(host="h", revision=1, issued_at=datetime.now(UTC), users={}), scan=False)
        facts = state.to_report().facts
        memory.folder.close()
        assert facts is not None
        assert facts["ssh_port"] == one.port


def test_a_port_of_loopback_is_reported_only_where_there_is_no_other() -> None:
    here, anywhere, six = (Listener("127.0.0.1", 22, "1"), Listener("0.0.0.0", 2222, "2"), Listener("::1", 23, "3"))
    assert [one.port for one in listening.by_reachability((here, six, anywhere))] == [2222, 22, 23]


def test_a_known_listener_counts_only_while_no_other_process_listens_there() -> None:
    with strict_folder() as folder, private_sshd(folder / "one") as (one, _):
        known = Sshd(str(one.config))
        first = known.listeners()
        assert [pid for listener in first for pid in listener.sshds] == [one.pid]
        assert (known.listeners(), Sshd(str(one.config)).listeners()) == (first, first)
        os.kill(one.pid, signal.SIGHUP)
        wait_until(lambda: known.listeners() and known.listeners() != first, "the sockets that it opens anew")
        second = known.listeners()
        assert [pid for listener in second for pid in listener.sshds] == [one.pid]
        one.stop()
        assert known.listeners() == ()
        with socket.create_server((ADDRESS, one.port)):
            other = known.listeners()
            assert [(listener.owners[0][0], listener.sshds) for listener in other] == [(os.getpid(), ())]
            elsewhere = f"Port {free_port()}"
            one.config.write_text(one.config.read_text("utf-8").replace(f"Port {one.port}", elsewhere), "utf-8")
            assert known.listeners() == ()


def test_keys_that_another_sshd_of_the_machine_takes_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [Key.make(tmp_path / name) for name in ("one", "two")]
    with (
        strict_folder() as folder,
        private_sshd(folder / "one") as (one, _),
        private_sshd(folder / "two") as (two, client),
    ):
        for server, key in zip((one, two), keys, strict=True):
            (server.keys / USERNAME).write_text(f"{key.public}\n", "ascii")
        assert client.lets_in(keys[1])
        monkeypatch.setattr(settings, "DEFAULT_CONFIG", str(one.config))
        sshd = Sshd(str(one.config))
        assert str(two.config) in {other.config for other in sshd.beside()}
        assert f"port {two.port}" in sshd.others()
        found = {found.path: found for found in Scanner(sshd, str(one.keys)).scan()}
        assert found[str(two.keys / USERNAME)].in_force
        assert fingerprint_of(keys[1].public) == found[str(two.keys / USERNAME)].fingerprint


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have another root folder")
def test_an_sshd_with_a_root_folder_of_its_own_is_reported_as_not_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with strict_folder() as folder, private_sshd(folder / "one") as (one, _):
        monkeypatch.setattr(settings, "DEFAULT_CONFIG", str(one.config))
        sshd, port = Sshd(str(one.config)), free_port()
        given = [
            "unshare",
            "-m",
            "--propagation",
            "private",
            "sh",
            "-c",
            BELOW_ANOTHER_ROOT,
            str(tmp_path),
            str(sshd_path()),
        ]
        other = subprocess.Popen([*given, "-D", "-f", str(one.config), "-p", str(port), "-o", "PidFile=none"])
        try:
            wait_until(lambda: f"port {port}" in sshd.others(), "the other sshd")
            scanner = Scanner(sshd, str(one.keys))
            scanner.scan()
        finally:
            other.terminate()
            other.wait(60)
        assert any("root folder of its own" in cut.why for cut in scanner.cut)


def test_keys_are_in_force_until_another_sshd_has_read_the_settings_that_exclude_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Key.make(tmp_path / "key")
    with (
        strict_folder() as folder,
        private_sshd(folder / "one") as (one, _),
        private_sshd(folder / "two") as (two, client),
    ):
        (two.keys / USERNAME).write_text(f"{key.public}\n", "ascii")
        monkeypatch.setattr(settings, "DEFAULT_CONFIG", str(one.config))
        monkeypatch.setattr(unmanaged_keys, "LIST_SECONDS", 0.0)
        scanner = Scanner(Sshd(str(one.config)), str(one.keys))
        scanner.scan()
        two.config.write_text(f"AuthorizedKeysFile none\n{two.config.read_text('utf-8')}", "utf-8")
        for _ in range(2):
            assert client.lets_in(key)
            assert [found.in_force for found in scanner.scan() if found.key == key.public] == [True]
            assert str(two.config) in {cut.path for cut in scanner.cut if cut.why == UNREAD}


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
