"""A Debian of its own with systemd, journald, logind and sshd, booted on this machine's kernel; holds no assertion.

Its file system is a copy on write of a small Debian system (scripts/hosts.sh); the machine's own files are not touched.
It shares loopback with the machine, so its sshd has a port of its own.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.login.contained_host import Machine
from tests.login.private_sshd import SshClient
from tests.quick_ssh import KEX_SETTING
from tests.waiting import wait_until

SYSTEMS = Path("/var/cache/keyrack-tests/hosts")
SETTINGS = "etc/ssh/sshd_config.d/90-port.conf"
SOCKET = "/etc/systemd/system/ssh.socket.d"
CONNECTION = (
    "[Service]\\nEnvironmentFile=-/etc/default/ssh\\nExecStart=-/usr/sbin/sshd -i $SSHD_OPTS\\nStandardInput=socket\\n"
    "RuntimeDirectory=sshd\\nRuntimeDirectoryPreserve=yes\\n"
)
# systemd of Debian 13 boots with the one hierarchy of cgroups alone, and this mount is nobody else's.
BOOT = """set -eu
while umount -l /sys/fs/cgroup 2>/dev/null; do :; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$3"
echo $$ >"/sys/fs/cgroup/$3/cgroup.procs"
mount -t overlay -o "lowerdir=$2,upperdir=$1/changes,workdir=$1/work" overlay "$1/root"
exec systemd-nspawn --register=no --keep-unit --quiet --console=pipe --machine="$3" --directory="$1/root" --boot
"""


def system_of(release: str) -> Path | None:
    """The small system of a release, waited for while `scripts/hosts.sh` makes it; None where there is none."""
    folder = SYSTEMS / release
    wait_until(lambda: folder.is_dir() or not are_being_made(), f"Debian {release}, which is being made", 1200)
    return folder if folder.is_dir() else None


def are_being_made() -> bool:
    """Whether `scripts/hosts.sh` runs now, which holds this lock."""
    try:
        with (SYSTEMS / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


class DebianHost:
    """One Debian system: boot() and shut_down() as often as wanted; its files stay in between."""

    def __init__(self, release: str, folder: Path, port: int, settings: str = "") -> None:
        """settings: more lines for its sshd."""
        can_be = os.geteuid() == 0 and shutil.which("systemd-nspawn") is not None
        system = system_of(release) if can_be else None
        if system is None:
            pytest.skip(
                f"this test boots Debian {release}: it needs root, systemd-container and `scripts/hosts.sh {release}`"
            )
        if subprocess.run(["unshare", "-m", "mount", "-t", "cgroup2", "x", "/sys/fs/cgroup"], check=False).returncode:
            pytest.skip("this test boots a Debian: name spaces and cgroups cannot be made here")
        self._system = system
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        for name in ("changes", "work", "root"):
            (folder / name).mkdir()
        file = folder / "changes" / SETTINGS
        file.parent.mkdir(parents=True)
        file.write_text(f"Port {port}\nListenAddress 127.0.0.1\n{settings}", "ascii")
        public = (system / "etc/ssh/ssh_host_ed25519_key.pub").read_text("ascii").split()
        known_hosts = folder / "known_hosts"
        known_hosts.write_text(f"[127.0.0.1]:{port} {public[0]} {public[1]}\n", "ascii")
        self.client = SshClient(port, known_hosts)

    def boot(self) -> None:
        """Start it, and return once all that starts at boot has."""
        name = f"keyrack-{os.getpid()}"
        given = ["unshare", "-m", "--propagation", "private", "/bin/sh", "-c", BOOT, "sh"]
        with (self._folder / "console").open("ab") as console:
            self._process = subprocess.Popen(
                [*given, str(self._folder), str(self._system), name],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        wait_until(self._is_up, "a Debian that has booted")

    def run(self, line: str, *, check: bool = True) -> str:
        """What a shell line prints, as root, standard error included; fails unless it succeeds, with check."""
        return Machine(self._pid, self.client).run(line, check=check)

    def shut_down(self) -> None:
        """Stop everything in it, as `poweroff` does."""
        if self._process is None:
            return
        if self._process.poll() is None and self._pid:
            self.run("systemctl poweroff", check=False)
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
            self._process, self._pid = None, 0

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "console").read_text("utf-8", "replace")
        if not self._pid:
            self._pid = _first_process(self._process.pid)
        if not self._pid:
            return False
        # Asked once, and answered when it has booted; only while there is nobody to ask yet, again and again.
        state = self.run("systemctl is-system-running --wait", check=False).strip()
        return state in ("running", "degraded")


def started_by_socket(host: DebianHost, accept: str) -> None:
    """Have systemd start its sshd when somebody connects, for each connection anew where accept is yes."""
    host.run("systemctl disable --now ssh.service; sed -i '/^Port /d' /etc/ssh/sshd_config.d/90-port.conf")
    lines = f"[Socket]\\nListenStream=\\nListenStream=127.0.0.1:{host.client.port}\\nAccept={accept}\\n"
    host.run(f"mkdir -p {SOCKET} && printf '{lines}' >{SOCKET}/zz-port.conf && rm -rf /run/sshd")
    if accept == "yes":  # each connection has a unit of its own then, which Debian leaves to its administrator
        host.run(f"printf '{CONNECTION}' >/etc/systemd/system/ssh@.service")
    host.run("systemctl daemon-reload && systemctl enable ssh.socket && systemctl restart ssh.socket")


@contextmanager
def debian_host(release: str, folder: Path, port: int, settings: str = "") -> Iterator[DebianHost]:
    """A Debian of this release, booted; its sshd knows the quick exchange alone. Skips where there can be none."""
    host = DebianHost(release, folder, port, KEX_SETTING + settings)
    try:
        host.boot()
        yield host
    finally:
        host.shut_down()


def _first_process(pid: int) -> int:
    """The number, as seen here, of the process that is number 1 in there; 0 while there is none."""
    try:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
            status = Path(f"/proc/{child}/status").read_text("ascii")
            numbers = next(line.split() for line in status.split("\n") if line.startswith("NSpid:"))
            if len(numbers) > 2 and numbers[-1] == "1" and "systemd" in status.split("\n")[0]:
                return int(child)
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
