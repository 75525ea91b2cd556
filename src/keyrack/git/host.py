"""Git over SSH on this machine: a private sshd, its programs and the authorizer that answers them; must hold no rule."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import click

from keyrack.agent.system.folder import unsafe_because
from keyrack.app import open_instance
from keyrack.cli import options
from keyrack.cli.demo_host import (
    HOW_TO_GET_SSHD,
    RESTART_SECONDS,
    START_SECONDS,
    DemoHostError,
    PrivateSshd,
    command_line,
    find_sshd,
    kill,
    safe_place,
    wait_until_gone,
)
from keyrack.cli.opened import refuse_none
from keyrack.cli.serve import explained, set_up_logging
from keyrack.core.git import storage
from keyrack.core.instance import Instance
from keyrack.git import build
from keyrack.git.authorizer import Authorizer, Programs

# sockaddr_un holds 108 bytes on Linux and 104 elsewhere, with a NUL at the end.
LONGEST_SOCKET_PATH = 100
NO_LOGIN = ("/nologin", "/false")


class GitSshd(PrivateSshd):
    """A sshd that knows no key itself: it asks for each, and every one leads to the session program alone."""

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
            "MaxStartups 200:30:1000",
            "ClientAliveInterval 30",
            "ClientAliveCountMax 4",
            *self._ends_of_idle_connections(),
        ]

    def _ends_of_idle_connections(self) -> list[str]:
        """What ends connections of clients that stall; older versions know only whether a client is there."""
        lines = (f"ChannelTimeout session:*={self.idle_seconds}", f"UnusedConnectionTimeout {self.idle_seconds}")
        return [line for line in lines if self._knows(line)]

    def known_hosts_lines(self) -> str:
        """The lines by which clients know it."""
        return self.known_hosts.read_text("ascii")


class GitHost:
    """Git over SSH, started, watched and stopped together; clones go to url("acme/site").

    It serves whoever has a key in the instance, under the name of the calling account. directory: where its
    parts go, unless sshd would find it unsafe there; DATA/git-host if not given. Raises DemoHostError.
    """

    def __init__(
        self,
        instance: Instance,
        *,
        port: int,
        address: str = "127.0.0.1",
        directory: Path | None = None,
        compiler: str | None = None,
        port_option: str = "--git-listen",
    ) -> None:
        sshd, git = find_sshd(), shutil.which("git")
        if sshd is None:
            raise DemoHostError(HOW_TO_GET_SSHD.replace("so there is no demo host", "so Git is not served"))
        if git is None:
            raise DemoHostError("git was not found, so Git is not served; install it, e.g. `apt-get install git`.")
        data = instance.settings.data.resolve()
        self.directory = safe_place(directory or data / "git-host")
        self.repositories = storage.root_of(data)
        self.server = GitSshd(self.directory, port, sshd, address)
        self.server.port_option = port_option
        self.server.idle_seconds = instance.settings.git_max_idle_seconds
        self.username = self.server.account
        self._instance = instance
        self._git = git
        self._compiler = compiler
        self._socket_folder: Path | None = None
        self.authorizer: Authorizer | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where its sshd listens."""
        return self.server.port

    @property
    def known_hosts(self) -> Path:
        """A known_hosts file for its sshd."""
        return self.server.known_hosts

    def url(self, path: str) -> str:
        """The clone address of a repository at this path, e.g. ssh://git@127.0.0.1:2223/acme/site.git."""
        near = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.server.address, self.server.address)  # noqa: S104
        return f"ssh://{self.username}@{near}:{self.port}/{path}.git"

    def start(self) -> None:
        """Write what is needed and start everything; returns once clones work. Raises DemoHostError."""
        self._check_shell()
        self.repositories.mkdir(parents=True, exist_ok=True, mode=0o755)
        programs = build.build(self.directory / "programs", compiler=self._compiler)
        hooks = build.hooks(self.directory / "programs", programs)
        socket = self._place_of_socket()
        session = shlex.join([*programs["session"], str(socket)])
        self.server.lookup = [*_as_sshd_wants(programs["lookup"]), str(socket)]
        self.authorizer = Authorizer(self._instance, socket, Programs(self._git, hooks, self.repositories, session))
        try:
            self.authorizer.start()
            self._end_left_over()
            self.server.prepare()
            self.server.start()
        except OSError as error:
            self.stop()
            raise DemoHostError(f"Git cannot be served from {self.directory}: {error.strerror}.") from None
        except BaseException:
            self.stop()
            raise
        self._watcher = threading.Thread(target=self._watch, name="git host", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """End sshd with its sessions, and the authorizer; may be called twice."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(timeout=START_SECONDS)
            self._watcher = None
        self.server.stop()
        if self.authorizer is not None:
            self.authorizer.stop()
            self.authorizer = None
        if self._socket_folder is not None:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None

    def write_log(self) -> None:
        """Write the events that wait to be written, which otherwise happens twice a second."""
        if self.authorizer is not None:
            self.authorizer.log.write()

    @property
    def running(self) -> int:
        """How many clones, fetches and pushes are under way."""
        return 0 if self.authorizer is None else self.authorizer.running

    def _watch(self) -> None:
        while not self._stopping.wait(RESTART_SECONDS):
            if not self.server.is_running():
                # Another try follows: its port may be taken for a moment.
                with contextlib.suppress(DemoHostError):
                    self.server.start()

    def _end_left_over(self) -> None:
        """End the sshd that an earlier run left when it was killed; its transfers go on, and ask this authorizer."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.directory / "sshd.pid").read_text("ascii"))
            if str(self.directory) in command_line(pid):
                kill(pid, signal.SIGTERM)
                wait_until_gone(pid)

    def _place_of_socket(self) -> Path:
        """Where the programs reach the authorizer: only this account can look into the folder."""
        folder = self.directory / "authorizer"
        if len(os.fsencode(folder)) > LONGEST_SOCKET_PATH - len("/s"):
            folder = self._socket_folder = Path(tempfile.mkdtemp(prefix="keyrack-"))
        folder.mkdir(exist_ok=True, parents=True)
        folder.chmod(0o700)
        return folder / "s"

    def _check_shell(self) -> None:
        shell = pwd.getpwuid(os.geteuid()).pw_shell
        if shell.endswith(NO_LOGIN):
            raise DemoHostError(
                f"The account {self.username} has the shell {shell}, with which sshd starts nothing. "
                f"Give it another one: usermod --shell /bin/sh {self.username}"
            )


def _word(text: str) -> str:
    """A word of AuthorizedKeysCommand. It may not begin with a quote, so blanks and quotes get a backslash."""
    if "\n" in text or "\t" in text:
        raise DemoHostError(f"Git cannot be served from {text!r}: sshd's settings cannot name it.")
    return "".join(f"\\{character}" if character in " \\\"'" else character for character in text).replace("%", "%%")


def _as_sshd_wants(arguments: list[str]) -> list[str]:
    """How sshd can start a program: the first word must belong to root, with all folders above it.

    Where the program belongs to the account that sshd itself runs as, `env` comes before it. That account
    could change sshd's settings just as well, so nothing is given away.
    """
    if _is_roots(arguments[0]):
        return arguments
    env = shutil.which("env")
    if env is None or not _is_roots(env):
        raise DemoHostError("There is no `env` that belongs to root, through which sshd could start its programs.")
    return [os.path.realpath(env), *arguments]


def _is_roots(path: str) -> bool:
    """Whether a program and every folder above it belong to root, and nobody else may write to them."""
    current = os.path.realpath(path)
    if unsafe_because(current) is not None:
        return False
    while os.lstat(current).st_uid == 0:
        if current == os.path.dirname(current):
            return True
        current = os.path.dirname(current)
    return False


@click.command(name="git-host")
@options.data
@options.database
@options.git_listen
def command(**given: Any) -> None:
    """Serve Git over SSH until it is stopped.

    It runs beside `keyrack serve`, with the same data folder or database. Clients log in under the name of
    the account that runs it, so run it as an account called git.
    """
    settings = options.settings(**given)
    set_up_logging()
    host, _, port = settings.git_listen.rpartition(":")
    with explained():
        refuse_none(settings)
        instance = open_instance(settings)
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    git_host = None
    try:
        git_host = GitHost(instance, port=int(port), address=host.strip("[]"))
        git_host.start()
        click.echo(f"Git is served at {git_host.url('GROUP/NAME')} (repositories in {git_host.repositories}).")
        stopping.wait()
    except DemoHostError as error:
        raise click.ClickException(str(error)) from None
    finally:
        if git_host is not None:
            git_host.stop()
        instance.database.close()
