"""The demo host: its sshd and agent start, heal and end together, and its words help where it cannot run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.cli.machine.demo_host import DemoHost
from keyrack.private_sshd import ADDRESS, PrivateSshdError, safe_place
from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.signed_documents import document
from tests.agent.small_service import SmallService, small_service
from tests.login.private_sshd import USERNAME, Key, SshClient, agent_host, sshd_path, strict_folder
from tests.ports import free_port
from tests.waiting import wait_until


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that sshd accepts."""
    with strict_folder() as path:
        yield path


@pytest.fixture
def service() -> Iterator[SmallService]:
    """A small service."""
    with small_service() as running:
        yield running


def publish(service: SmallService, revision: int, *keys: Key) -> None:
    """Let these keys, and no others, into the calling account."""
    text = document(revision, {USERNAME: [AuthorizedKey(key.public) for key in keys]})
    service.publish(revision, service.signer.signed(text))


def test_a_key_is_added_and_deleted(folder: Path, service: SmallService) -> None:
    key = Key.make(folder / "key")
    with agent_host(folder, service.url, "t0ken") as (host, client):
        assert host.is_enrolled(service.url)
        assert not host.is_enrolled(f"{service.url}0"), "another address of the service"
        assert host.username == USERNAME
        assert not client.lets_in(key)
        publish(service, 1, key)
        service.wait_for_report("applied", 1)
        assert client.login(key, command="id -un").stdout == f"{USERNAME}\n"
        publish(service, 2)
        service.wait_for_report("applied", 2)
        assert not client.lets_in(key)
        assert "revision 2 is in force" in host._run_agent("status").stdout


def test_killed_parts_come_back(folder: Path, service: SmallService) -> None:
    key = Key.make(folder / "key")
    with agent_host(folder, service.url, "t0ken") as (host, client):
        for pid in map(int, (host.directory / "running").read_text().split()):
            os.kill(pid, signal.SIGKILL)
        publish(service, 1, key)
        service.wait_for_report("applied", 1)
        wait_until(lambda: client.login(key).returncode == 0, "a login after sshd came back")


def test_a_stopped_demo_host_leaves_nothing_running(folder: Path, service: SmallService) -> None:
    with agent_host(folder, service.url, "t0ken") as (host, _):
        pids = [int(pid) for pid in (host.directory / "running").read_text().split()]
        assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((ADDRESS, host.port))


def test_processes_that_a_killed_run_left_are_ended_first(folder: Path, service: SmallService) -> None:
    with agent_host(folder, service.url, "t0ken") as (first, _):
        first._stopping.set()  # so that the first does not start its parts again
        assert first._watcher is not None
        first._watcher.join()
        second = DemoHost(folder / "host", first.port, sshd_path())
        second.prepare()
        assert second.is_enrolled(service.url)
        second.start()
        try:
            publish(service, 1, key := Key.make(folder / "key"))
            service.wait_for_report("applied", 1)
            assert SshClient(second.port, second.known_hosts).lets_in(key)
        finally:
            second.stop()


def test_a_taken_port_is_named(folder: Path) -> None:
    with socket.create_server((ADDRESS, 0)) as taken:
        port = taken.getsockname()[1]
        host = DemoHost(folder / "host", port, sshd_path())
        host.prepare()
        with pytest.raises(PrivateSshdError, match=f"Port {port} .*--sshd-port"):
            host.start()
        host.stop()


def test_a_service_that_refuses_is_quoted(folder: Path, service: SmallService) -> None:
    service.refusal = 403
    host = DemoHost(folder / "host", free_port(), sshd_path())
    host.prepare()
    with pytest.raises(PrivateSshdError, match="no such host"):
        host.enrol(service.url, "used")
    assert not host.is_enrolled(service.url)


def test_tmp_is_replaced_by_a_place_that_sshd_accepts(folder: Path, tmp_path: Path) -> None:
    assert safe_place(folder / "demo") == folder / "demo"
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    elsewhere = safe_place(shared / "demo")
    assert shared not in elsewhere.parents
    assert elsewhere == safe_place(shared / "demo"), "a second start finds the same place"
    assert elsewhere != safe_place(shared / "other")


@pytest.mark.skipif(os.geteuid() != 0, reason="a /run of one's own takes root")
def test_the_demo_host_explains_what_is_missing_where_sshd_never_ran(tmp_path: Path) -> None:
    there, new = tmp_path / "there", tmp_path / "new"
    prepare = (
        "import sys; from pathlib import Path; from keyrack.private_sshd import PrivateSshd, find_sshd; "
        "PrivateSshd(Path(sys.argv[1]), 2222, find_sshd()).prepare()"
    )
    subprocess.run([sys.executable, "-c", prepare, str(there)], check=True, timeout=60)
    empty = 'mount -t tmpfs none /run && exec "$@"'
    private = ["unshare", "-m", "--propagation", "private", "sh", "-c", empty, "sh"]
    subprocess.run([*private, sys.executable, "-c", prepare, str(new)], check=True, timeout=60)
    settings = [(folder / "sshd_config").read_text("utf-8").replace(str(folder), "") for folder in (there, new)]
    assert settings[0] == settings[1]
    assert "SetEnv" in settings[1]
