"""What a key's options say of forwarding is what sshd holds to, for a found line and for what becomes of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keyrack.private_sshd import PrivateSshd
from keyrack.ssh import authorized_keys, foreign_options
from keyrack.ssh.options import render
from tests.login.private_sshd import USERNAME, Key, SshClient, private_sshd, strict_folder

HOSTS = ("127.0.0.1", "localhost", "LOCALHOST", "[::1]")
LISTENS = ("PORT", "localhost:PORT", "*:PORT", "127.0.0.1:PORT")
LINES = (
    "",
    'permitopen="127.0.0.1:PORT"',
    'permitopen="localhost:PORT",permitopen="localhost:PORT"',
    'permitopen="*:PORT"',
    'permitopen="[::1]:PORT"',
    'permitopen="127.0.0.1:*",permitlisten="localhost:*"',
    'restrict,permitopen="127.0.0.1:PORT"',
    'permitlisten="PORT",restrict',
    'restrict,port-forwarding,permitopen="127.0.0.1:PORT"',
    'no-port-forwarding,permitopen="127.0.0.1:PORT",permitlisten="PORT"',
    'permitlisten="PORT"',
    'permitlisten="127.0.0.1:PORT"',
)


class Forwards:
    """What the real ssh may forward by a line of a key, and whether it logs in at all."""

    def __init__(self, sshd: PrivateSshd, client: SshClient, key: Key) -> None:
        self._sshd, self._client, self._key = sshd, client, key

    def allowed(self, options: str) -> set[str]:
        (self._sshd.keys / USERNAME).write_text(f"{options} {self._key.public}\n".lstrip(), "ascii")
        found = {"a login"} if self._client.lets_in(self._key) else set()
        *given, target, _ = self._client.command(self._key)
        for host in HOSTS:
            ended = self._run([*given, "-W", f"{host}:{self._sshd.port}", target])
            if b"SSH-2" in ended.stdout or b"open failed: connect failed" in ended.stderr:
                found.add(f"to {host}")
        for listen in LISTENS:
            place = listen.replace("PORT", str(self._sshd.port + 1))
            asked = ["-o", "ExitOnForwardFailure=yes", "-R", f"{place}:127.0.0.1:9"]
            if self._run([*given, *asked, target, "true"]).returncode == 0:
                found.add(f"at {listen}")
        return found

    @staticmethod
    def _run(given: list[str]) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(given, input=b"", capture_output=True, check=False, timeout=60)


def test_an_accepted_key_forwards_what_it_did_before_and_shows_that_alone(tmp_path: Path) -> None:
    with strict_folder() as folder, private_sshd(folder) as (sshd, client):
        forwards = Forwards(sshd, client, Key.make(tmp_path / "key"))
        for text in LINES:
            number = sshd.port + 1 if "permitlisten" in text else sshd.port
            options = text.replace("PORT", str(number))
            read = foreign_options.read(options).restrictions
            before = forwards.allowed(options)
            assert forwards.allowed(",".join(render(read, "ssh-ed25519"))) == before, text
            shown = bool(read.permitopen or read.permitlisten)
            assert not shown or any(one != "a login" for one in before), text


@pytest.mark.parametrize("options", ['permitopen="127.0.0.1"', 'permitopen="any"', 'permitlisten="0"'])
def test_a_line_that_names_no_port_lets_nobody_in(tmp_path: Path, options: str) -> None:
    with strict_folder() as folder, private_sshd(folder) as (sshd, client):
        key = Key.make(tmp_path / "key")
        assert not Forwards(sshd, client, key).allowed(options)
        (line,) = authorized_keys.read(f"{options} {key.public}\n".encode("ascii"))
        assert line.problem is not None
