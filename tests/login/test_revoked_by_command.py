"""A revocation by the command line reaches the hosts that a service in another process serves, on one SQLite file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from keyrack.ssh.public_key import fingerprint_of
from tests.login.fleet import fleet
from tests.login.private_sshd import Key, strict_folder
from tests.services import running, settings_for


def test_a_host_refuses_a_key_that_the_command_line_revoked(team_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(team_folder, data)
    key, other = Key.make(tmp_path / "key"), Key.make(tmp_path / "other")
    with (
        strict_folder() as folder,
        running(settings_for(data, "")) as service,
        fleet(service, folder, 1) as hosts,
    ):
        (host,) = hosts.hosts
        hosts.add(key, "key")
        hosts.add(other, "other")
        host.client.wait_until_open(key)
        revoke = [sys.executable, "-m", "keyrack.cli.main", "hosts", "revoke", fingerprint_of(key.public)]
        # Nothing is sent over the network: the service finds it in the file.
        ended = subprocess.run(
            [*revoke, "--workspace", "acme", "--data", str(data)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        host.client.wait_until_closed(key)
        assert host.client.lets_in(other)
