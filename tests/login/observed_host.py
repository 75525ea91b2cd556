"""A host as an operator finds it: five accounts, keys in odd places, an authority, a command, rules; needs root."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from keyrack.agent.sshd.settings import Sshd
from keyrack.core.hosts import servers
from keyrack.core.people import actors
from keyrack.model import Actor
from keyrack.private_sshd import ADDRESS
from tests import own_machine
from tests.login.private_sshd import Key, SshClient, own_settings, sshd_path
from tests.ports import free_port
from tests.quick_ssh import quick_pair
from tests.services import Service
from tests.waiting import wait_until

ACCOUNTS = ("krone", "krtwo", "krthree", "krfour", "krfive")
ACCOUNT_FILES = ("passwd", "shadow", "group", "gshadow")
_ADDED: dict[str, dict[str, str]] = {}  # the lines that useradd wrote of a name, by file
_HOMES: dict[str, int] = {}  # and the modes of the homes


@contextlib.contextmanager
def accounts(names: Sequence[str] = ACCOUNTS) -> Iterator[None]:
    """Accounts of this machine, with homes, for as long as the block lasts; skipped when not root."""
    if os.geteuid() != 0 or shutil.which("useradd") is None:
        pytest.skip("this test creates accounts: it needs root and useradd")
    if own_machine.taken:
        yield from _made(names)
    else:
        with _alone():
            yield from _made(names)


def set_home(name: str, home: Path) -> None:
    """Give an account another home, as `usermod -d` does where nothing runs by its number: another worker may."""
    passwd = Path("/etc/passwd")
    lines = [line.split(":") for line in passwd.read_text("utf-8").splitlines()]
    changed = [[*line[:5], str(home), *line[6:]] if line[0] == name else line for line in lines]
    _replace(passwd, "".join(":".join(line) + "\n" for line in changed))


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """The accounts are this machine's: another run of these tests waits until ours are gone."""
    with open("/run/keyrack-tests-accounts", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _made(names: Sequence[str]) -> Iterator[None]:
    remove_accounts(names)
    try:
        for name in names:
            _add(name)
        yield
    finally:
        for name in names:
            if _is_as_made(name):
                _take_away(name)
            else:
                remove_accounts([name])


def _add(name: str) -> None:
    """By useradd; once it has done so on this machine of ours alone, as it did: an account costs little then."""
    lines = _ADDED.get(name)
    if lines is None or int(lines["passwd"].split(":")[2]) in {one.pw_uid for one in pwd.getpwall()}:
        # "*": no password, yet not locked.
        subprocess.run(["useradd", "-m", "-s", "/bin/sh", "-p", "*", name], check=True, capture_output=True)
        if own_machine.taken:
            _ADDED[name] = {file: _line(file, name) for file in ACCOUNT_FILES}
            _HOMES[name] = Path("/home", name).stat().st_mode & 0o7777
        return
    for file, line in lines.items():
        with Path("/etc", file).open("a") as appended:
            appended.write(line)
    home, account = Path("/home", name), pwd.getpwnam(name)
    shutil.copytree("/etc/skel", home, symlinks=True)
    home.chmod(_HOMES[name])
    for path in (home, *home.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _is_as_made(name: str) -> bool:
    """Whether _add() made an account, and nobody changed it since or put it into another group."""
    if name not in _ADDED or any(_line(file, name) != line for file, line in _ADDED[name].items()):
        return False
    groups = Path("/etc/group").read_text("utf-8").splitlines()
    return not any(name in line.split(":")[3].split(",") for line in groups)


def _take_away(name: str) -> None:
    """What userdel does to an account that is as it was made."""
    for file, line in _ADDED[name].items():
        path = Path("/etc", file)
        lines = path.read_text("utf-8").splitlines(keepends=True)
        _replace(path, "".join(one for one in lines if one != line))
    shutil.rmtree(Path("/home", name), ignore_errors=True)
    Path("/var/mail", name).unlink(missing_ok=True)


def _line(file: str, name: str) -> str:
    """What a file of accounts says of a name; "" for nothing."""
    lines = Path("/etc", file).read_text("utf-8").splitlines(keepends=True)
    return next((line for line in lines if line.startswith(f"{name}:")), "")


def _replace(path: Path, text: str) -> None:
    """Put another text into a file that others read meanwhile; owner and mode stay."""
    fresh, status = path.with_name(f"{path.name}.fresh"), path.stat()
    fresh.touch(0o600)
    fresh.write_text(text, "utf-8")
    os.chown(fresh, status.st_uid, status.st_gid)
    fresh.chmod(status.st_mode & 0o7777)
    fresh.replace(path)


def remove_accounts(names: Sequence[str]) -> None:
    """Remove accounts and their homes, where they exist."""
    for name in names:
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            subprocess.run(["userdel", "-f", "-r", name], check=False, capture_output=True)
        with contextlib.suppress(KeyError):
            grp.getgrnam(name)  # a group of its own that was no longer the account's first
            subprocess.run(["groupdel", "-f", name], check=False, capture_output=True)


@contextlib.contextmanager
def accounts_of_directories(names: Sequence[str]) -> Iterator[None]:
    """Accounts of names that no program here would give, as directories have them, with homes. Within accounts()."""
    files = [Path("/etc/passwd"), Path("/etc/shadow")]
    before = [file.read_bytes() for file in files]
    homes = [Path(f"/home/kr-odd-{number}") for number in range(len(names))]
    first = 1 + max(account.pw_uid for account in pwd.getpwall() if account.pw_uid < 60_000 or own_machine.taken)
    try:
        for number, (name, home) in enumerate(zip(names, homes, strict=True), first):
            with files[0].open("a") as passwd, files[1].open("a") as shadow:
                passwd.write(f"{name}:x:{number}:{number}::{home}:/bin/sh\n")
                shadow.write(f"{name}:*:19000:0:99999:7:::\n")
            home.mkdir(mode=0o755)
            os.chown(home, number, number)
        yield
    finally:
        for file, data in zip(files, before, strict=True):
            file.write_bytes(data)
        for home in homes:
            shutil.rmtree(home, ignore_errors=True)


class PatientSshClient(SshClient):
    """Knocks again while sshd reads its settings: it closes its port for a moment (SIGHUP, sshd(8))."""

    def login(
        self, key: Key, user: str = "root", command: str = "true", extra: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """As SshClient does."""
        ended: list[subprocess.CompletedProcess[str]] = []

        def knock() -> bool:
            ended[:] = [super(PatientSshClient, self).login(key, user, command, extra)]
            away = ("Connection refused", "Connection reset", "kex_exchange_identification")
            return not any(words in ended[0].stderr for words in away)

        wait_until(knock, "an sshd that answers")
        return ended[0]


class AdoptedHost:
    """sshd with settings of its own, and the agent's command for it. `was`: its files before Keyrack came."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.etc = folder / "etc"
        self.config = self.etc / "sshd_config"
        self.state = folder / "agent"
        self.keys: dict[str, Key] = {}
        self.ca = folder / "ca"
        self.port = free_port()
        self.client = PatientSshClient(self.port, folder / "known_hosts")
        self.program: Path | None = None
        self.arguments: list[str] = []
        self._sshd: subprocess.Popen[bytes] | None = None
        self._agent: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Settings, host key, and a key for each account, each in another kind of place."""
        self.etc.mkdir()
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        quick_pair(self.etc / "host_key", "host")
        public = (self.etc / "host_key.pub").read_text("ascii").rstrip()
        self.client.known_hosts.write_text(f"[{ADDRESS}]:{self.port} {public}\n", "ascii")
        for name in (*ACCOUNTS, "rogue", "global", "certified", "helper"):
            self.keys[name] = Key.make(self.folder / f"key-{name}")
        quick_pair(self.ca, "authority")
        helper = self.etc / "helper"
        helper.write_text(f"#!/bin/sh\n[ \"$1\" = krfive ] && echo '{self.keys['helper'].public}'\nexit 0\n", "ascii")
        helper.chmod(0o755)
        self.place("krone", ".ssh/authorized_keys", f'from="127.0.0.1",no-pty {self.keys["krone"].public} one\n')
        rogue = f"{self.keys['krtwo'].public} two\n# left by somebody\n{self.keys['rogue'].public} rogue@nowhere\n"
        self.place("krtwo", ".ssh/authorized_keys2", rogue)
        (self.etc / "odd").mkdir()
        (self.etc / "odd" / "krthree.pub").write_text(f"{self.keys['krthree'].public} three\n", "ascii")
        self.place("krfour", "keys-of-krfour", f"{self.keys['krfour'].public} four\n")
        authority = f'cert-authority,principals="krfive" {self._public(self.ca)} authority\n'
        self.place("krfive", ".ssh/authorized_keys", f"{self.keys['krfive'].public} five\n{authority}")
        (self.etc / "global_keys").write_text(f"{self.keys['global'].public} everywhere\n", "ascii")
        self.config.write_text(self._settings(helper), "ascii")
        self.config.chmod(0o640)
        os.utime(self.config, ns=(1_600_000_000_123_456_789, 1_600_000_000_987_654_321))

    def start_sshd(self) -> None:
        """Start it, and return once it greets."""
        with (self.folder / "sshd.log").open("ab") as log:
            given = [str(self.program or sshd_path()), "-D", "-e", "-f", str(self.config), *self.arguments]
            self._sshd = subprocess.Popen(given, stdout=log, stderr=log, start_new_session=True)
        wait_until(Sshd(str(self.config)).greets, "a greeting of the new sshd")

    def stop_sshd(self) -> None:
        """End the sshd that listens; logins stay."""
        if self._sshd is not None:
            self._sshd.terminate()
            self._sshd.wait(60)
            self._sshd = None

    def tell_sshd(self) -> None:
        """Have it read its settings, as its administrator would."""
        assert self._sshd is not None
        self._sshd.send_signal(signal.SIGHUP)

    def agent(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the agent's command to its end."""
        given = [sys.executable, "-m", "keyrack.agent", *arguments, f"--state-dir={self.state}"]
        return subprocess.run(
            given, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120
        )

    def enrol(self, service: Service, server_id: int, *more: str, trial: float = 5) -> None:
        """Enrol as install.sh does, for observing; trial: seconds for which enforcing is watched."""
        token = servers.invite(service.instance, owner(), server_id)
        ended = self.agent(
            "enroll",
            f"--url={service.url}",
            f"--keys-dir={self.etc / 'keyrack' / 'keys'}",
            f"--revoked-keys={self.etc / 'keyrack' / 'revoked_keys'}",
            f"--sshd-config={self.config}",
            "--drop-in=auto",
            "--mode=observe",
            *more,
            KEYRACK_AGENT_TOKEN=token,
        )
        assert ended.returncode == 0, ended.stderr
        self.decide(trial_seconds=trial)

    def decide(self, **fields: object) -> None:
        """Edit the host's own decisions, as its administrator would."""
        path = self.state / "local.json"
        path.write_text(json.dumps({**json.loads(path.read_text("ascii")), **fields}), "ascii")

    def start_agent(self) -> None:
        """Start following the service."""
        with (self.folder / "agent.log").open("ab") as log:
            given = [sys.executable, "-m", "keyrack.agent", "run", f"--state-dir={self.state}"]
            self._agent = subprocess.Popen(given, stdout=log, stderr=log, start_new_session=True)

    def stop_agent(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; it may have ended by itself."""
        if self._agent is not None:
            self._agent.send_signal(number)
            self._agent.wait(60)
            self._agent = None

    @property
    def agent_pid(self) -> int:
        """The number of the agent's process."""
        assert self._agent is not None
        return self._agent.pid

    @contextlib.contextmanager
    def pausing_agent(self) -> Iterator[None]:
        """The agent does nothing while the block lasts, so that what it would mend can be seen."""
        assert self._agent is not None
        self._agent.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._agent.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End the agent and sshd."""
        self.stop_agent()
        self.stop_sshd()

    def log(self) -> str:
        """What the agent said."""
        return (self.folder / "agent.log").read_text("utf-8")

    def certified(self) -> Key:
        """A key with a certificate of the authority that krfive trusts."""
        key = self.keys["certified"]
        given = [
            "ssh-keygen",
            "-q",
            "-s",
            str(self.ca),
            "-I",
            "x",
            "-n",
            "krfive",
            str(key.path.with_name(key.path.name + ".pub")),
        ]
        subprocess.run(given, check=True)
        return key

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        """Every file below the settings' folder and the homes: bytes, mode, owner, time of the last change."""
        found: dict[str, tuple[object, ...]] = {}
        for top in (self.etc, *(Path("/home") / name for name in ACCOUNTS)):
            for path in sorted(top.rglob("*")):
                if path.name == "sshd.pid":  # sshd's own, at each start
                    continue
                status = path.lstat()
                data = path.read_bytes() if path.is_file() else b""
                when = status.st_mtime_ns if path.is_file() else 0
                found[str(path)] = (data, status.st_mode, status.st_uid, status.st_gid, when)
        return found

    def _settings(self, helper: Path) -> str:
        return f"""\
# Settings of a host that has seen many hands.
Port {self.port}
ListenAddress {ADDRESS}
HostKey {self.etc}/host_key
PidFile {self.etc}/sshd.pid
AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2 {self.etc}/global_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
SetEnv SHLVL=1
LogLevel VERBOSE
MaxStartups 100
{own_settings()}Match User krthree
    AuthorizedKeysFile {self.etc}/odd/%u.pub
Match User krfour
    AuthorizedKeysFile %h/keys-of-%u
Match User krfive
    AuthorizedKeysCommand {helper} %u
    AuthorizedKeysCommandUser nobody
"""

    def place(self, name: str, path: str, text: str) -> None:
        """Put a file into the home of an account, as the account's own."""
        account = pwd.getpwnam(name)
        file = Path(account.pw_dir) / path
        file.parent.mkdir(mode=0o700, exist_ok=True)
        file.write_text(text, "ascii")
        file.chmod(0o600)
        for one in {file, file.parent} - {Path(account.pw_dir)}:
            os.chown(one, account.pw_uid, account.pw_gid)

    @staticmethod
    def _public(path: Path) -> str:
        return " ".join(path.with_name(path.name + ".pub").read_text("ascii").split()[:2])


def owner() -> Actor:
    """Keyrack itself, in the first workspace."""
    return actors.system_actor(1)
