"""A key posted to either API opens a real SSH login, and stops opening it: real service, agent, sshd and ssh."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keyrack.cli.machine.demo_host import DemoHost
from keyrack.core.hosts import servers
from keyrack.core.people import actors
from keyrack.model import Actor
from tests.login.private_sshd import USERNAME, Key, SshClient, agent_host, strict_folder
from tests.services import Service, running, settings_for
from tests.waiting import wait_until

OLGA = "token-of-olga"
LIFE_SECONDS = 20


class Host:
    """A service with one enrolled host; the service and the host can be stopped apart."""

    def __init__(self, service: Service, host: DemoHost, client: SshClient, stack: ExitStack) -> None:
        self.service = service
        self.host = host
        self.client = client
        self._stack = stack

    def add(self, key: Key, label: str, **fields: Any) -> Any:
        """Post a key to RunCloud's API for the calling account."""
        body = {"label": label, "username": USERNAME, "publicKey": key.public, **fields}
        answer = self.service.call("POST", "/api/v3/servers/1/ssh/credentials", token=OLGA, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def delete(self, credential: Any) -> None:
        """Delete it again."""
        path = f"/api/v3/servers/1/ssh/credentials/{credential['id']}"
        assert self.service.call("DELETE", path, token=OLGA).status_code == 200

    def stop_service(self) -> None:
        """End the service, and leave sshd running."""
        self._stack.close()


def keyrack(service: Service) -> Actor:
    """Keyrack itself, in the first workspace."""
    return actors.system_actor(1)


@pytest.fixture
def host(team_folder: Path, tmp_path: Path) -> Iterator[Host]:
    data = tmp_path / "data"
    shutil.copytree(team_folder, data)
    with ExitStack() as outer:
        folder = outer.enter_context(strict_folder())
        with ExitStack() as stack:
            settings = settings_for(data, "", temporary_hours=LIFE_SECONDS / 3600)
            service = stack.enter_context(running(settings))
            if USERNAME not in ("root", "deploy"):
                body = {"username": USERNAME}
                service.call("POST", "/api/v3/servers/1/users", token=OLGA, json=body)
            token = servers.invite(service.instance, keyrack(service), 1)
            demo, client = outer.enter_context(agent_host(folder, service.url, token))
            yield Host(service, demo, client, stack)


def test_a_key_opens_a_login_and_its_deletion_shuts_it(host: Host, tmp_path: Path) -> None:
    key = Key.make(tmp_path / "key")
    assert not host.client.lets_in(key)
    credential = host.add(key, "laptop")
    host.client.wait_until_open(key)
    host.delete(credential)
    host.client.wait_until_closed(key)
    host.add(key, "laptop")
    host.client.wait_until_open(key)


def test_a_temporary_key_ends_with_service_and_agent_dead(host: Host, tmp_path: Path) -> None:
    lasting, short = Key.make(tmp_path / "lasting"), Key.make(tmp_path / "short")
    host.add(lasting, "lasting")
    credential = host.add(short, "short", temporary=True)
    host.client.wait_until_open(short)
    host.stop_service()
    host.host.stop_agent()
    end = datetime.strptime(credential["expires_at"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    host.client.wait_until_closed(short)
    # The refusal came from the line itself, and not before the time it names.
    assert datetime.now(UTC) >= end - timedelta(seconds=1)
    assert host.client.lets_in(lasting)


def test_a_users_own_key_opens_what_is_granted(host: Host, tmp_path: Path) -> None:
    key = Key.make(tmp_path / "key")
    host.service.apply(
        f"""
        [workspace]
        name = "acme"
        [[grants]]
        user = "alice"
        server = "web-1"
        system_user = "{USERNAME}"
        """
    )
    headers = {"X-Auth-Token": "token-of-alice"}
    added = host.service.call("POST", "/v4/user/keys", headers=headers, json={"title": "desk", "key": key.public})
    assert added.status_code == 201
    host.client.wait_until_open(key)
    gone = host.service.call("DELETE", f"/v4/user/keys/{added.json()['id']}", headers=headers)
    assert gone.status_code == 204
    host.client.wait_until_closed(key)


@pytest.mark.parametrize(
    ("key_type", "bits"),
    [("ed25519", None), ("ecdsa", 256), ("ecdsa", 384), ("ecdsa", 521), ("rsa", 2048), ("rsa", 3072), ("rsa", 4096)],
)
def test_every_key_type_logs_in(typed_host: Host, tmp_path: Path, key_type: str, bits: int | None) -> None:
    key = Key.make(tmp_path / "key", key_type, bits)
    typed_host.add(key, f"{key_type}-{bits}")
    typed_host.client.wait_until_open(key)


@pytest.mark.parametrize(
    "line",
    [
        "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIF01XsFbRs9IxxlVU6F+nYJDqn+ukux1kgt"
        "IqvtZlhe7AAAABHNzaDo=",
    ],
    ids=["sk-ed25519"],
)
def test_hardware_keys_are_delivered(typed_host: Host, line: str) -> None:
    body = {"label": "token", "username": USERNAME, "publicKey": line}
    answer = typed_host.service.call("POST", "/api/v3/servers/1/ssh/credentials", token=OLGA, json=body)
    assert answer.status_code == 200
    file = typed_host.host.server.keys / USERNAME
    wait_until(lambda: line in file.read_text("ascii"), "the key in the host's file")


@pytest.fixture(scope="module")
def typed_host(team_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One host for all key types."""
    data = tmp_path_factory.mktemp("types") / "data"
    shutil.copytree(team_folder, data)
    with strict_folder() as folder, ExitStack() as stack:
        service = stack.enter_context(running(settings_for(data, "")))
        if USERNAME not in ("root", "deploy"):
            service.call("POST", "/api/v3/servers/1/users", token=OLGA, json={"username": USERNAME})
        token = servers.invite(service.instance, keyrack(service), 1)
        demo, client = stack.enter_context(agent_host(folder, service.url, token))
        yield Host(service, demo, client, stack)
