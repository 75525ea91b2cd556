"""One login through a real sshd without a port: ssh starts it as its own proxy, for the calling user."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path

from tests.quick_ssh import KEX
from tests.ssh.cases import make_key

CONFIG = """
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
RevokedKeys {folder}/revoked
StrictModes no
UsePAM no
SetEnv SHLVL=1
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
LogLevel ERROR
"""


class Sshd:
    """Files for one sshd in `folder`: write `authorized` and `revoked`, then log in."""

    def __init__(self, folder: Path) -> None:
        self.authorized = folder / "authorized"
        self.revoked = folder / "revoked"
        self._folder = folder
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd gives up root; Debian makes it at boot
        make_key(folder, "host", "-t", "ecdsa")
        (folder / "config").write_text(CONFIG.format(folder=folder))
        self.revoked.write_bytes(b"")
        self._proxy = f"{program} -i -f {folder}/config -E {folder}/log"

    def login(self, private_key: Path, command: str = "echo in") -> str | None:
        """What `command` prints over a login with this key; None when sshd refuses the key."""
        done = subprocess.run(
            [
                "ssh", "-F", "none", "-T", "-i", private_key, "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
                "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                "-o", "LogLevel=ERROR", "-o", KEX, "-o", f"ProxyCommand={self._proxy}",
                f"{getpass.getuser()}@host.invalid", command,
            ],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        if b"Permission denied" in done.stderr:
            return None
        assert done.returncode == 0, (done, (self._folder / "log").read_text())
        return done.stdout.decode()
