"""What a scan calls in force is what the running sshd lets in, by the settings that it read and for whom they are."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.agent import doctor
from keyrack.agent.keys.remove_keys import remove_keys
from keyrack.agent.keys.unmanaged_keys import Scanner
from keyrack.agent.sshd import listening
from keyrack.agent.sshd.read_settings import UNREAD
from keyrack.agent.sshd.settings import Sshd
from keyrack.private_sshd import ADDRESS
from keyrack.protocol.host_document import KeyRemoval
from tests.agent.test_unmanaged_keys import needs_root, put
from tests.login.observed_host import PatientSshClient, accounts
from tests.login.private_sshd import Key, own_settings, sshd_path, strict_folder
from tests.ports import free_port
from tests.quick_ssh import quick_pair
from tests.waiting import wait_until

NAME = "krread"
AS_SYSTEMD = """import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Host:
    """An account, its key, and an sshd whose settings the test writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = Key.make(folder / "key")
        self.home = Path(pwd.getpwnam(NAME).pw_dir)
        self.config = folder / "sshd_config"
        self.sshd = Sshd(str(self.config))
        self.scanner = Scanner(self.sshd, "/nonexistent")
        self._port = free_port()
        self._client = PatientSshClient(self._port, folder / "known_hosts")
        self._process: subprocess.Popen[bytes] | None = None
        quick_pair(folder / "host_key", "host")
        public = (folder / "host_key.pub").read_text("ascii").rstrip()
        self._client.known_hosts.write_text(f"[{ADDRESS}]:{self._port} {public}\n", "ascii")

    def write(self, settings: str) -> None:
        """These settings, beside those of where it listens."""
        own = f"Port {self._port}\nListenAddress {ADDRESS}\nHostKey {self.folder}/host_key\nPidFile {self.folder}/pid\n"
        self.config.write_text(f"{own_settings()}{own}{settings}", "ascii")

    def listening(self) -> socket.socket:
        """The socket where it listens, kept as systemd keeps that of ssh.socket."""
        return socket.create_server((ADDRESS, self._port))

    def start(self, kept: socket.socket | None = None, *more: str) -> None:
        """Have sshd read them and listen. kept: at this socket, which it gets as from systemd (sd_listen_fds(3)); more:
        of its command line.
        """
        given = [str(sshd_path()), "-D", "-e", "-f", str(self.config), *more]
        if kept is not None:
            given = [sys.executable, "-c", AS_SYSTEMD, str(kept.fileno()), *given]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                given, stdin=subprocess.DEVNULL, stderr=log, pass_fds=[] if kept is None else [kept.fileno()]
            )
        wait_until(self.sshd.greets, "a greeting of the new sshd")

    def reload(self) -> None:
        """Have it read them again."""
        assert self._process is not None
        before = self.sshd.listeners()
        self._process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.sshd.listeners() not in (before, ()) and self.sshd.greets(), "an sshd that has read")

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)

    def lets_in(self) -> bool:
        """Whether the key opens the account."""
        return self._client.lets_in(self.key, NAME)

    def is_reported(self, scanner: Scanner | None = None) -> bool:
        """Whether a scan reports the key as in force."""
        return any(one.in_force and one.key == self.key.public for one in (scanner or self.scanner).scan())

    def unread(self, scanner: Scanner) -> list[tuple[str, str]]:
        """Where the last scan proves nothing, as sshd has not read its settings."""
        return [(cut.username, cut.path) for cut in scanner.cut if cut.why == UNREAD]


@pytest.fixture
def host() -> Iterator[Host]:
    with accounts((NAME,)), strict_folder() as folder:
        found = Host(folder)
        try:
            yield found
        finally:
            found.stop()


@needs_root
@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ("AuthorizedKeysFile .ssh/keys .ssh/old\n", "AuthorizedKeysFile .ssh/keys\n"),
        (f"Match User {NAME}\nAuthorizedKeysFile .ssh/old\n", "AuthorizedKeysFile none\n"),
        ("AuthorizedKeysFile .ssh/old\n", "AuthorizedKeysFile .ssh/old\nPubkeyAcceptedAlgorithms rsa-sha2-512\n"),
    ],
)
def test_a_key_is_in_force_until_sshd_has_read_the_settings_that_exclude_it(
    host: Host, settings: str, changed: str
) -> None:
    put(host.home / ".ssh" / "old", f"{host.key.public}\n")
    host.write(settings)
    host.start()
    assert (host.lets_in(), host.is_reported(), host.unread(host.scanner)) == (True, True, [])
    host.write(changed)
    for _ in range(2):
        assert (host.lets_in(), host.is_reported()) == (True, True)
        assert host.unread(host.scanner) == [("", str(host.config))]
    host.reload()
    assert (host.lets_in(), host.is_reported(), host.unread(host.scanner)) == (False, False, [])


@needs_root
def test_an_sshd_that_systemd_hands_its_socket_has_read_once_it_began_anew(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its socket stays the same then, as systemd keeps it (ssh.socket with Accept=no, the usual way on Ubuntu)."""
    monkeypatch.setattr(listening, "_SYSTEMD", os.getpid())
    if b"libsystemd" not in sshd_path().read_bytes():
        pytest.skip("this sshd takes no socket from systemd")
    put(host.home / ".ssh" / "old", f"{host.key.public}\n")
    host.write("AuthorizedKeysFile .ssh/old\n")
    with host.listening() as kept:
        host.start(kept)
        assert (host.lets_in(), host.is_reported(), host.unread(host.scanner)) == (True, True, [])
        host.write("AuthorizedKeysFile .ssh/keys\n")
        assert (host.lets_in(), host.is_reported()) == (True, True)
        assert host.unread(host.scanner) == [("", str(host.config))]
        host.stop()
        host.start(kept)
        assert (host.lets_in(), host.is_reported(), host.unread(host.scanner)) == (False, False, [])


@needs_root
def test_a_scanner_that_starts_after_a_change_of_settings_says_that_it_does_not_know_the_running_ones(
    host: Host,
) -> None:
    """What sshd read is gone from the disk, so nothing is taken for gone."""
    put(host.home / ".ssh" / "old", f"{host.key.public}\n")
    host.write("AuthorizedKeysFile .ssh/old\n")
    host.start()
    time.sleep(0.05)  # times of files are as fine as the kernel's clock ticks
    host.write("AuthorizedKeysFile .ssh/keys\n")
    late = Scanner(host.sshd, "/nonexistent")
    assert host.lets_in()
    assert not host.is_reported(late)
    assert host.unread(late) == [("", "")]

    def words() -> list[str]:
        return [one.words for one in doctor._check_listeners(host.sshd) if not one.fine]

    assert any("changed after the sshd that runs had read them" in one for one in words())
    host.reload()
    assert not host.is_reported(late)
    assert host.unread(late) == []
    assert words() == []


@needs_root
def test_settings_written_otherwise_but_meaning_the_same_are_unchanged(host: Host) -> None:
    host.write("AuthorizedKeysFile .ssh/keys\n")
    host.start()
    host.scanner.scan()
    host.write("# by hand\nauthorizedkeysfile   .ssh/keys\n")
    os.utime(host.config, (time.time() + 60, time.time() + 60))
    host.scanner.scan()
    assert host.unread(host.scanner) == []


@needs_root
@pytest.mark.parametrize("rule", ["", f"AuthorizedKeysFile none\nMatch User {NAME}\n"])
@pytest.mark.parametrize("file", ["authorized_keys", "git"])
def test_a_key_file_in_a_home_belongs_to_the_account_of_that_home(host: Host, rule: str, file: str) -> None:
    """As sshd of a Git server has it: Match User git, AuthorizedKeysFile /var/lib/git/.ssh/authorized_keys."""
    path = host.home / ".ssh" / file
    put(path, f"{host.key.public}\n")
    host.write(f"{rule}AuthorizedKeysFile {path}\n")
    host.start()
    assert host.lets_in()
    (one,) = (one for one in host.scanner.scan() if one.key == host.key.public)
    assert (one.username, one.path, one.in_force, one.problem) == (NAME, str(path), True, "")
    if rule:
        assert not [cut for cut in host.scanner.cut if cut.path == str(path)]


_ECDSA = "PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256"
_ED25519 = "PubkeyAcceptedAlgorithms ssh-ed25519"


@needs_root
@pytest.mark.parametrize(
    ("settings", "opens"),
    [
        (f"{_ECDSA}\nMatch User {NAME}\n{_ED25519}\n", True),
        (f"{_ECDSA}\nMatch Group {NAME}\nPubkeyAcceptedKeyTypes +ssh-ed25519\n", True),
        (f"{_ECDSA}\nMatch Address {ADDRESS}\n{_ED25519}\n", True),
        (f"{_ED25519}\nMatch User {NAME}\n{_ECDSA}\n", False),
        (f"{_ECDSA}\nMatch User nobody\n{_ED25519}\n", False),
    ],
)
def test_a_rule_of_sshd_for_one_account_decides_which_of_its_keys_are_in_force(
    host: Host, settings: str, opens: bool
) -> None:
    put(host.home / ".ssh" / "authorized_keys", f"{host.key.public}\n")
    host.write(f"AuthorizedKeysFile .ssh/authorized_keys\n{settings}")
    host.start()
    assert (host.lets_in(), host.is_reported()) == (opens, opens)


@needs_root
@pytest.mark.parametrize(("everybody", "one", "opens"), [(3072, 1024, True), (1024, 3072, False)])
def test_how_long_one_accounts_rsa_keys_must_be_decides_of_them(
    host: Host, everybody: int, one: int, opens: bool
) -> None:
    host.key = Key.make(host.folder / "rsa", "rsa", 2048)
    put(host.home / ".ssh" / "authorized_keys", f"{host.key.public}\n")
    host.write(f"RequiredRSASize {everybody}\nMatch User {NAME}\nRequiredRSASize {one}\n")
    host.start()
    assert (host.lets_in(), host.is_reported()) == (opens, opens)


@needs_root
@pytest.mark.parametrize(
    "settings",
    [
        b"AuthorizedKeysFile none\nMatch\rUser krread\nAuthorizedKeysFile .ssh/caf\xe9\n",
        b"AuthorizedKeysFile none # \rMatch User x\n\rMatch User krread\r\n\tAuthorizedKeysFile\r.ssh/caf\xe9\r\n",
        b"Include /etc/no\0such/*.conf\n\t/such\nAuthorizedKeysFile .ssh/ca\0 Match User x\nf\xe9\n\0Match User x\n",
        b"AuthorizedKeysFile .ssh/none '.ssh/caf\xe9'\n",
        b"AuthorizedKeysFile none\nInclude FOLDER/caf\xe9.conf\n",
        b"AuthorizedKeysFile none\nInclude FOLDER/[a-d]*.conf\n",
    ],
)
def test_settings_are_read_as_the_bytes_that_they_are(host: Host, settings: bytes) -> None:
    """Ends of lines that are none to sshd, NUL, and names that are no UTF-8."""
    latin = os.fsdecode(b"caf\xe9")
    put(host.home / ".ssh" / latin, f"{host.key.public}\n")
    (host.folder / f"{latin}.conf").write_bytes(f"Match User {NAME}\nAuthorizedKeysFile .ssh/".encode() + b"caf\xe9\n")
    host.write("")
    with host.config.open("ab") as file:
        file.write(settings.replace(b"FOLDER", os.fsencode(host.folder)))
    host.start()
    assert host.lets_in()
    (found,) = (one for one in host.scanner.scan() if one.in_force and one.key == host.key.public)
    assert found.username == NAME
    # As the service decodes what was reported (web/bodies.py).
    removal = KeyRemoval(found.path.replace(latin[-1], "\ufffd"), found.fingerprint)
    assert remove_keys([removal], [found]) == []
    assert not host.lets_in()


@needs_root
def test_a_key_file_that_only_the_title_of_sshd_names_is_reported(host: Host) -> None:
    """A title has no bounds of words, so it is the same whether -h names a host key or belongs to what is before it."""
    file = host.folder / "of-all"
    file.write_text(f"{host.key.public}\n", "ascii")
    host.write("")
    host.start(None, "-o", f"AuthorizedKeysFile .ssh/none -h {file}")
    assert host.lets_in()
    assert host.is_reported()
    host.stop()
    shutil.copy(host.folder / "host_key", file)
    host.start(None, "-o", "AuthorizedKeysFile .ssh/none", "-h", str(file))
    assert not host.lets_in()
    scanner = Scanner(host.sshd, "/nonexistent")
    assert not [one for one in scanner.scan() if one.path == str(file)]
    assert not [cut for cut in scanner.cut if cut.path == str(file)]


@needs_root
@pytest.mark.parametrize(
    ("settings", "opens"),
    [
        ("RevokedKeys LIST\n", False),
        (f"RevokedKeys LIST\nMatch User {NAME}\nRevokedKeys /dev/null\n", True),
        (f"Match Group {NAME}\nRevokedKeys LIST\n", False),
        ("Match User nobody\nRevokedKeys LIST\n", True),
        (f"RevokedKeys LIST\nMatch Address {ADDRESS}\nRevokedKeys /dev/null\n", True),
    ],
)
@pytest.mark.parametrize("kind", ["lines", "krl"])
def test_a_key_that_the_hosts_own_list_revokes_opens_nothing(host: Host, settings: str, opens: bool, kind: str) -> None:
    put(host.home / ".ssh" / "authorized_keys", f"{host.key.public}\n")
    path = host.folder / "revoked"
    path.write_text(f"{host.key.public}\n", "ascii")
    if kind == "krl":
        subprocess.run(["ssh-keygen", "-q", "-k", "-f", path, host.key.path.with_suffix(".pub")], check=True)
    host.write(settings.replace("LIST", str(path)))
    host.start()
    assert (host.lets_in(), host.is_reported()) == (opens, opens)
    path.write_text("", "ascii")
    assert (host.lets_in(), host.is_reported()) == (True, True)


@needs_root
@pytest.mark.parametrize("settings", [f"Match User {NAME}\nRevokedKeys none\n", "RevokedKeys /nonexistent\n"])
def test_a_list_that_sshd_cannot_read_lets_no_key_in(host: Host, settings: str) -> None:
    """Below a Match, `none` is a file of this name to sshd."""
    put(host.home / ".ssh" / "authorized_keys", f"{host.key.public}\n")
    host.write(settings)
    host.start()
    assert (host.lets_in(), host.is_reported()) == (False, False)
    (found,) = [one for one in host.scanner.scan() if one.key == host.key.public]
    assert "RevokedKeys" in found.problem
