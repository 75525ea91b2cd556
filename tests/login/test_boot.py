"""A host that was off boots: what was revoked meanwhile never opens it, and a service that is away keeps nobody out."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from keyrack.core.hosts import modes
from keyrack.core.keys import credentials
from tests.login.debian_host import debian_host, started_by_socket
from tests.login.private_sshd import Key, SshClient, strict_folder
from tests.login.test_debian_releases import KEYRACK, LONG, SERVER, Scene, shorten_the_trial
from tests.ports import free_port
from tests.services import running, settings_for
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(1500)  # the system may still be being made


class Knocking:
    """Somebody with a key who tries it again and again. refused, opened: how often sshd said so."""

    def __init__(self, client: SshClient, key: Key) -> None:
        self._client, self._key = client, key
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._knock)
        self.refused = self.opened = 0

    def __enter__(self) -> Knocking:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _knock(self) -> None:
        while not self._over.wait(0.05):
            ended = self._client.login(self._key, "deploy")
            self.opened += ended.returncode == 0
            self.refused += "Permission denied" in ended.stderr


@contextmanager
def silence(url: str) -> Iterator[None]:
    """Whoever asks at this address is taken and never answered, as by a firewall or a service that hangs."""
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", urlsplit(url).port))
        listening.listen(64)
        yield


MORE = [("bullseye", ""), ("trixie", ""), ("bookworm", "no"), ("bookworm", "yes"), ("trixie", "yes")]


@pytest.mark.parametrize(("release", "accept"), [("bookworm", ""), *(MORE if LONG else [])])
def test_a_host_that_was_off(team_folder: Path, tmp_path: Path, release: str, accept: str) -> None:
    """accept: of its ssh.socket, where that has sshd started."""
    # All these logins come from one address, which newer sshds would shut out.
    settings = "PerSourcePenalties no\n" if release == "trixie" else ""
    data = tmp_path / "data"
    shutil.copytree(team_folder, data)
    with strict_folder() as folder, debian_host(release, folder, free_port(), settings) as host, ExitStack() as stack:
        service = stack.enter_context(running(settings_for(data, "")))
        scene = Scene(service, host, tmp_path)
        if accept:
            started_by_socket(host, accept)
        scene.prepare()
        scene.paste()
        wait_until(scene.obeyed, "a first report")
        (lost, credential), (kept, _) = scene.add("lost"), scene.add("kept")
        wait_until(scene.obeyed, "the keys on the host")
        shorten_the_trial(scene)
        modes.set_mode(service.instance, KEYRACK, SERVER, "enforce")
        wait_until(scene.enforces, "enforcing")
        assert host.client.lets_in(lost, "deploy")

        host.shut_down()
        credentials.delete(service.instance, KEYRACK, SERVER, credential)
        with Knocking(host.client, lost) as knocking:
            host.boot()
            host.client.wait_until_open(kept, "deploy")
            wait_until(scene.obeyed, "the receipt")
            wait_until(lambda: knocking.refused > 0, "a refusal")
        assert knocking.opened == 0
        assert "this host enforces" in scene.agent("status")

        host.run("""sed -i 's/"boot_seconds": 15.0/"boot_seconds": 3.0/' /var/lib/keyrack-agent/local.json""")
        host.shut_down()
        stack.close()
        with silence(service.url):
            host.boot()
            host.client.wait_until_open(kept, "deploy")
            assert not host.client.lets_in(lost, "deploy")
            wait_until(lambda: "no answer" in host.run("journalctl -b -u keyrack-agent -o cat"), "words about that")
            unit = "ssh.socket" if accept else "ssh"
            said = host.run(
                f"systemctl is-active {unit}; systemctl list-units --state=failed --no-legend 'ssh*' 'keyrack*'"
            )
            assert said == "active\n"
