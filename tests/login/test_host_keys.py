"""Host keys come from hosts' own agents: ssh trusts none on first use, and a changed one not until it is confirmed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyrack.cli import ssh_config
from keyrack.cli.machine.demo_host import DemoHost
from keyrack.core.hosts import server_changes, servers, system_users
from keyrack.core.people import actors
from tests.cli.test_over_http import good, home, listed, log_in, run
from tests.login.private_sshd import USERNAME, Key, agent_host, strict_folder
from tests.quick_ssh import KEX
from tests.services import Service
from tests.waiting import wait_until

__all__ = ["home"]

HOST_KEYS = "/api/keyrack/v1/servers/web-1/host-keys"


@pytest.fixture
def host(team: Service) -> Iterator[DemoHost]:
    """web-1 as a real host with a real agent, at an address that ssh reaches."""
    instance, actor = team.instance, actors.system_actor(1)
    server_changes.change(instance, actor, 1, address="127.0.0.1")
    if USERNAME != "root":
        system_users.create(instance, actor, 1, username=USERNAME)
    with strict_folder() as folder, agent_host(folder, team.url, servers.invite(instance, actor, 1)) as (found, _):
        yield found


def host_keys_of(team: Service) -> Any:
    """The host keys of web-1."""
    return team.call("GET", HOST_KEYS, token="token-of-olga").json()


def ssh(config: Path, key: Key, name: str = "web-1") -> subprocess.CompletedProcess[str]:
    """A real login with this configuration alone."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [
            "ssh",
            "-F",
            str(config),
            "-o",
            KEX,
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-i",
            str(key.path),
            name,
            "true",
        ],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def written(folder: Path) -> Path:
    """The configuration, written anew."""
    good("ssh-config", "--write")
    return folder / "config" / "keyrack" / "ssh_config"


def test_ssh_trusts_only_the_host_keys_that_the_agent_reported(team: Service, home: Path, host: DemoHost) -> None:
    wait_until(lambda: host_keys_of(team)["items"], "host keys that the agent reported")
    first = host_keys_of(team)
    assert {one["port"] for one in first["items"]} == {host.port}
    assert not first["changed"]
    assert all(one["confirmed"] and one["shown"] for one in first["items"])

    key = Key.make(home / "alice")
    good("grants", "give", "--user", "alice", "--server", "web-1", "--as", USERNAME)
    log_in(team, "alice")
    good("keys", "mine", "add", f"{key.path}.pub")
    config = written(home)
    assert "StrictHostKeyChecking yes" in config.read_text()
    wait_until(lambda: ssh(config, key).returncode == 0, "a login that trusts no host key on first use")
    live = home / "live"
    live.write_text(good("ssh-config", "--live"))
    assert ssh(live, key).returncode == 0

    # Another host key, as after a new installation, or by somebody in between.
    host.stop()
    for file in [*host.server.directory.rglob("*_key"), *host.server.directory.rglob("*_key.pub")]:
        file.unlink()
    host.prepare()
    host.start()
    wait_until(lambda: host_keys_of(team)["changed"], "another host key that the agent told")
    for configuration in (config, written(home), live):
        refused = ssh(configuration, key)
        assert refused.returncode == 255
        assert "Host key verification failed" in refused.stderr
    assert run("servers", "host-keys", "web-1", "--confirm").exit_code == 1, "alice may not"
    log_in(team, "olga")
    assert {one["state"] for one in listed("servers", "host-keys", "web-1")} == {"CHANGED", "not shown any more"}
    events = team.call("GET", "/api/keyrack/v1/events?search=host key", token="token-of-olga").json()["items"]
    assert [one["level"] for one in events if "nobody confirmed" in one["summary"]] == ["alarm"]

    stale = [one["fingerprint"] for one in first["items"]]
    answer = team.call("POST", f"{HOST_KEYS}/confirm", token="token-of-olga", json={"fingerprints": stale})
    assert answer.status_code == 409, "what was seen is not there any more"
    assert {one["state"] for one in listed("servers", "host-keys", "web-1", "--confirm")} == {"trusted"}
    log_in(team, "alice")
    assert ssh(written(home), key).returncode == 0
    assert ssh(live, key).returncode == 0


BAD = {
    "server": "web-1",
    "server_id": 1,
    "address": "192.0.2.10",
    "port": 22,
    "system_users": ["deploy"],
    "host_keys": [],
    "changed": False,
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "192.0.2.10\n  ProxyCommand touch /tmp/x"),
        ("address", "-oProxyCommand=x"),
        ("system_users", ["deploy\n  ProxyCommand x"]),
        ("port", "22\n"),
        ("server_id", "1 x"),
    ],
)
def test_a_service_cannot_write_other_settings_into_the_file(field: str, value: object) -> None:
    assert ssh_config.checked({**BAD, field: value}) is None


def test_a_name_that_ssh_reads_as_a_pattern_is_not_one() -> None:
    one = ssh_config.checked({**BAD, "server": "* !x\nProxyCommand y", "host_keys": ["ssh-rsa x\n* y", 5]})
    assert one is not None
    assert (one["name"], one["host_keys"]) == ("keyrack-1", [])
    assert json.dumps(list(ssh_config.config([one], Path("/known")))).count("ProxyCommand") == 0
