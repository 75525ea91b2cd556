"""A host of its own inside this machine: own /etc, accounts, homes and processes, an sshd on loopback; no assertion.

The line that RunCloud's API answers is run in it exactly as printed, as root, and nothing of the machine itself is
touched: it lives in name spaces of its own, and all that it writes to lies on file systems that vanish with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.login.private_sshd import SshClient, own_settings
from tests.waiting import wait_until

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Where an installation writes, beside /etc, which is copied; each must exist to be covered.
COVERED = ("/home", "/run", "/var/log", "/var/mail", "/var/lib", "/usr/local/lib/keyrack-agent", "/usr/local/bin")
SETUP = """set -eu
cp -a /etc "$1/etc"
rm -rf "$1/etc/ssh"
mkdir -p "$1/etc/ssh/sshd_config.d"
cp "$1"/given/* "$1/etc/ssh/"
mount --bind "$1/etc" /etc
shift
for folder in "$@"; do mount -t tmpfs -o mode=755 tmpfs "$folder"; done
mkdir -m 755 /run/sshd
echo ready
while :; do sleep 1; done
"""


class Machine:
    """The host: run() runs a shell line in it as root, API leads to its sshd."""

    def __init__(self, pid: int, client: SshClient) -> None:
        self._pid = pid
        self.client = client

    def run(self, line: str, *, check: bool = True) -> str:
        """What a shell line prints, standard error included; fails unless it succeeds, with check."""
        # nsenter keeps the folder that it was in, of which the shell complains where it is not one of the host's.
        shell = ["env", "-C", "/", "/bin/sh", "-c", line]
        given = ["nsenter", "-t", str(self._pid), "-m", "-p", "-r", "--", *shell]
        ended = subprocess.run(
            given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=120,
            cwd="/",
            env={"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"},
        )
        assert not check or ended.returncode == 0, f"{line}: {ended.returncode}\n{ended.stdout}"
        return ended.stdout

    def effective(self) -> dict[str, str]:
        """What its sshd does by its settings now: `sshd -T`."""
        lines = (line.split(" ", 1) for line in self.run("/usr/sbin/sshd -T").split("\n") if " " in line)
        return {line[0]: line[1] for line in lines}


@contextmanager
def machine(folder: Path, port: int) -> Iterator[Machine]:
    """A host that nobody has enrolled, with an sshd on this port; skips the test where none can be made."""
    if os.geteuid() != 0 or shutil.which("nsenter") is None or not Path("/usr/sbin/sshd").exists():
        pytest.skip("this test makes a host of its own: it needs root, nsenter and sshd")
    if subprocess.run(["unshare", "-m", "-p", "-f", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this test makes a host of its own: name spaces cannot be made here")
    known_hosts = _write_settings(folder / "given", port)
    made = [Path(path) for path in COVERED if not Path(path).exists()]
    for path in made:
        path.mkdir(parents=True)
    given = ["unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", "--propagation", "private"]
    process = subprocess.Popen(
        [*given, "/bin/sh", "-c", SETUP, "sh", str(folder), *COVERED],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the host of its own could not be made"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("ascii").split()
        host = Machine(int(children[0]), SshClient(port, known_hosts))
        # There is no syslog in it, so sshd writes the file itself that syslog would.
        host.run("/usr/sbin/sshd -E /var/log/auth.log")
        wait_until(lambda: "SSH-" in _greeting(port), "the greeting of sshd")
        yield host
    finally:
        process.kill()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()
        for path in made:
            path.rmdir()


def _write_settings(given: Path, port: int) -> Path:
    """What its /etc/ssh holds; answers a known_hosts file for it."""
    given.mkdir()
    key = given / "ssh_host_ed25519_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key)], check=True, timeout=60)
    lines = [
        "Include /etc/ssh/sshd_config.d/*.conf",
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        "PidFile /run/sshd.pid",
        "UsePAM no",
        "PasswordAuthentication yes",
        "PermitRootLogin yes",
        "MaxStartups 200",
        # Root's home is the machine's own: bash reads nothing of it at this depth, such as a tool that may hang.
        "SetEnv SHLVL=1",
    ]
    (given / "sshd_config").write_text("\n".join([*lines, own_settings()]), "ascii")
    known_hosts = given.parent / "known_hosts"
    public = key.with_suffix(".pub").read_text("ascii").rstrip()
    known_hosts.write_text(f"[127.0.0.1]:{port} {public}\n", "ascii")
    return known_hosts


def _greeting(port: int) -> str:
    given = ["ssh-keyscan", "-T", "5", "-p", str(port), "127.0.0.1"]
    ended = subprocess.run(given, capture_output=True, text=True, check=False, timeout=30)
    return ended.stdout + ended.stderr
