"""Git's own sshd: it asks for each key, and every key only starts the session program; must decide nothing."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

from keyrack.private_sshd import PrivateSshd, PrivateSshdError, is_roots


class GitSshd(PrivateSshd):
    """An sshd without keys of its own: it asks for each, and every key only starts the session program."""

    what = "Git's sshd"

    def __init__(self, directory: Path, port: int, sshd: Path, address: str) -> None:
        super().__init__(directory, port, sshd, address)
        self.lookup: list[str] = []
        self.idle_seconds = 600
        self.account = pwd.getpwuid(os.geteuid()).pw_name

    def own_settings(self) -> list[str]:
        """The settings that leave nothing but Git; the first of a kind counts."""
        words = " ".join(map(_word, self.lookup))
        return [
            "AuthorizedKeysFile none",
            # %f is the fingerprint of the key that is offered, and later of the one whose signature is checked.
            f"AuthorizedKeysCommand {words} %f",
            f"AuthorizedKeysCommandUser {self.account}",
            f"AllowUsers {self.account}",
            "AuthenticationMethods publickey",
            "PermitRootLogin forced-commands-only",
            "DisableForwarding yes",
            "PermitTTY no",
            "PermitTunnel no",
            "PermitUserRC no",
            "PermitUserEnvironment no",
            "AcceptEnv GIT_PROTOCOL",
            # sshd starts the session program through the account's shell, and bash would run ~/.bashrc before
            # it: a third of a second where somebody has filled it. On this level of shells it does not.
            "SetEnv SHLVL=1",
            "HostbasedAuthentication no",
            "GSSAPIAuthentication no",
            "UseDNS no",
            "PrintLastLog no",
            "Compression no",
            "LoginGraceTime 30",
            "MaxAuthTries 10",
            # Of this setting alone the last one counts.
            "MaxStartups 400:30:1000",
            "ClientAliveInterval 30",
            "ClientAliveCountMax 4",
            *self._bounds_of_one_address(),
            *self._ends_of_idle_connections(),
        ]

    def _bounds_of_one_address(self) -> list[str]:
        """What keeps one address from taking all places of connections that have no proof yet, from OpenSSH 8.5 on.

        Below where MaxStartups begins to turn connections away by lot, so that one address never brings it there.
        """
        lines = ("PerSourceMaxStartups 200", "PerSourceNetBlockSize 32:64")
        return [line for line in lines if self._knows(line)]

    def _ends_of_idle_connections(self) -> list[str]:
        """What ends connections of clients that stall; older versions know only whether a client is there."""
        lines = (f"ChannelTimeout session:*={self.idle_seconds}", f"UnusedConnectionTimeout {self.idle_seconds}")
        return [line for line in lines if self._knows(line)]


def as_sshd_wants(arguments: list[str]) -> list[str]:
    """The command by which sshd can start a program: its first word must belong to root, with all folders above it.

    Where the program belongs to the account that sshd itself runs as, `env` comes before it. That account
    could change sshd's settings just as well, so nothing is given away.
    """
    if is_roots(arguments[0]):
        return arguments
    env = shutil.which("env")
    if env is None or not is_roots(env):
        raise PrivateSshdError("There is no `env` that belongs to root, through which sshd could start its programs.")
    return [os.path.realpath(env), *arguments]


def _word(text: str) -> str:
    """A word of AuthorizedKeysCommand. It may not begin with a quote, so blanks and quotes get a backslash."""
    if "\n" in text or "\t" in text:
        raise PrivateSshdError(f"Git cannot be served from {text!r}: sshd's settings cannot name it.")
    return "".join(f"\\{character}" if character in " \\\"'" else character for character in text).replace("%", "%%")
