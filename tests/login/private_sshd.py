"""A private sshd for tests, with or without the real agent, and real ssh to log in with; holds no assertion."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from keyrack.cli.machine.demo_host import DemoHost
from keyrack.private_sshd import ADDRESS, PrivateSshd, find_sshd
from keyrack.ssh import revoked_keys
from tests import leftovers
from tests.ports import free_port
from tests.quick_ssh import KEX, KEX_SETTING, quick_host_key, quick_pair, stored_rsa_pair
from tests.waiting import wait_until

USERNAME = pwd.getpwuid(os.geteuid()).pw_name


def sshd_path() -> Path:
    """sshd, or the test is skipped with the reason."""
    path = find_sshd()
    if path is None:
        pytest.skip("this test logs in: it needs sshd (openssh-server)")
    return path


def quick(server: PrivateSshd) -> None:
    """Have a prepared sshd know the quick exchange of keys alone: the agent asks it as well, and ssh-keyscan."""
    server.config.write_text(f"{KEX_SETTING}{server.config.read_text('utf-8')}", "utf-8")


def own_settings() -> str:
    """Lines of settings for an sshd of tests alone: a quick exchange of keys for whoever asks, and patience."""
    return KEX_SETTING + patience()


@cache
def patience() -> str:
    """The line of settings by which an sshd shuts nobody out for refused logins (9.8 and newer do); "" before.

    All that is refused in tests comes from one address.
    """
    return "PerSourcePenalties no\n" if b"persourcepenalties" in sshd_path().read_bytes() else ""


@contextmanager
def strict_folder() -> Iterator[Path]:
    """A new folder where sshd's StrictModes accepts key files, unlike below /tmp; removed at the end.

    As root every account can look into it, so that others than root can log in too.
    """
    parent = Path("/var/lib/keyrack-tests") if os.geteuid() == 0 else Path.home() / ".cache" / "keyrack-tests"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=parent))
    leftovers.tell("folder", str(folder))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Key:
    """A key pair as ssh-keygen makes it: the path of the private half, and the public half in its normal form."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.public = " ".join(path.with_name(path.name + ".pub").read_text("ascii").split()[:2])

    @classmethod
    def make(cls, path: Path, key_type: str = "ed25519", bits: int | None = None) -> Key:
        """Make a pair at `path`: a new one, but for RSA one that is stored, as to find primes takes up to seconds."""
        if key_type == "ed25519":
            quick_pair(path, "test")
            return cls(path)
        if key_type == "rsa":
            stored_rsa_pair(path, bits or 3072, "test")
            return cls(path)
        size = ["-b", str(bits)] if bits else []
        given = ["ssh-keygen", "-q", "-t", key_type, *size, "-N", "", "-C", "test", "-f", str(path)]
        subprocess.run(given, check=True, timeout=120)
        return cls(path)


class SshClient:
    """Where to log in: a port on loopback and the known_hosts file for it."""

    def __init__(self, port: int, known_hosts: Path) -> None:
        self.port = port
        self.known_hosts = known_hosts

    def login(
        self, key: Key, user: str = USERNAME, command: str = "true", extra: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` over a new ssh connection that can use this one key and nothing of the caller's."""
        given = self.command(key, user, command, extra)
        return subprocess.run(given, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)

    def command(self, key: Key, user: str = USERNAME, command: str = "true", extra: Sequence[str] = ()) -> list[str]:
        """The ssh command for that."""
        options = (
            KEX,
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "PreferredAuthentications=publickey",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=none",
            "ConnectTimeout=20",
            f"UserKnownHostsFile={self.known_hosts}",
        )
        given = ["ssh", "-F", "/dev/null", "-i", str(key.path), "-p", str(self.port)]
        for option in options:
            given += ["-o", option]
        given += quick_host_key(self.known_hosts)
        return [*given, *extra, f"{user}@{ADDRESS}", command]

    def stay(self, key: Key) -> subprocess.Popen[bytes]:
        """A login without any command, there until it is ended; the caller waits for that or kills it."""
        given = self.command(key, extra=("-N",))
        return subprocess.Popen(given, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def lets_in(self, key: Key, user: str = USERNAME) -> bool:
        """Whether the key opens the account now. Fails when ssh ends for another reason than a refusal."""
        ended = self.login(key, user)
        deadline = time.monotonic() + 20
        # An sshd that reads its settings anew starts itself again, and listens to nobody for a moment; one that systemd
        # starts for a socket is ended first, with whom it had just taken. A login in the moment of a revocation is let
        # in and ended: what the key does now, only the next one shows.
        unsaid = ("Connection refused", "Connection reset by", "closed by remote host")
        while ended.returncode and any(words in ended.stderr for words in unsaid) and time.monotonic() < deadline:
            time.sleep(0.05)
            ended = self.login(key, user)
        if ended.returncode == 0:
            return True
        assert "Permission denied (publickey" in ended.stderr, ended.stderr
        return False

    def wait_until_open(self, key: Key, user: str = USERNAME) -> None:
        """Return once the key opens the account."""
        wait_until(lambda: self.lets_in(key, user), f"a login as {user}")

    def wait_until_closed(self, key: Key, user: str = USERNAME) -> None:
        """Return once the key no longer opens the account."""
        wait_until(lambda: not self.lets_in(key, user), f"a refusal for {user}")


@contextmanager
def private_sshd(folder: Path, program: Path | None = None) -> Iterator[tuple[PrivateSshd, SshClient]]:
    """sshd alone, in a strict folder, with no keys and nothing revoked: the test writes the files.

    program: what starts it, where it is not this machine's.
    """
    server = PrivateSshd(folder / "sshd", free_port(), program or sshd_path())
    server.prepare()
    server.keys.mkdir(exist_ok=True)
    if not server.revoked_keys.exists():
        server.revoked_keys.write_bytes(revoked_keys.render(()))
    server.start()
    try:
        yield server, SshClient(server.port, server.known_hosts)
    finally:
        server.stop()


@contextmanager
def agent_host(folder: Path, url: str, token: str) -> Iterator[tuple[DemoHost, SshClient]]:
    """sshd and the real agent, enrolled at a service with a one-time token, both running."""
    host = DemoHost(folder / "host", free_port(), sshd_path())
    host.prepare()
    quick(host.server)
    host.enrol(url, token)
    host.start()
    try:
        yield host, SshClient(host.port, host.known_hosts)
    finally:
        host.stop()
