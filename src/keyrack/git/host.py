"""Git over SSH on this machine: its sshd, its programs and the authorizer that answers them; must hold no rule."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import tempfile
import threading
from pathlib import Path
from socket import gethostname

from keyrack.core.git import storage
from keyrack.core.instance import Instance
from keyrack.git import build
from keyrack.git.authorizer import Authorizer, Programs
from keyrack.git.sshd import GitSshd, as_sshd_wants
from keyrack.logs import logger
from keyrack.private_sshd import (
    HOW_TO_GET_SSHD,
    RESTART_SECONDS,
    START_SECONDS,
    PrivateSshdError,
    end_left_over,
    find_sshd,
    safe_place,
)

log = logger("keyrack.git")

# sockaddr_un holds 108 bytes on Linux and 104 elsewhere, with a NUL at the end.
LONGEST_SOCKET_PATH = 100
NO_LOGIN = ("/nologin", "/false")


class GitHost:
    """Git over SSH, started, watched and stopped together; clones go to url("acme/site").

    It serves whoever has a key in the instance, under the name of the calling account. directory: where its
    parts go, unless sshd would find it unsafe there; DATA/git-host if not given. Raises PrivateSshdError.
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
            raise PrivateSshdError(f"sshd was not found, so Git is not served. {HOW_TO_GET_SSHD}")
        if git is None:
            raise PrivateSshdError("git was not found, so Git is not served; install it, e.g. `apt-get install git`.")
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
        """Write what is needed and start everything; returns once clones work. Raises PrivateSshdError."""
        self._check_shell()
        self.repositories.mkdir(parents=True, exist_ok=True, mode=0o755)
        programs = build.build(self.directory / "programs", compiler=self._compiler)
        hooks = build.hooks(self.directory / "programs", programs)
        socket = self._place_of_socket()
        session = shlex.join([*programs["session"], str(socket)])
        self.server.lookup = [*as_sshd_wants(programs["lookup"]), str(socket)]
        given = Programs(self._git, hooks, self.repositories, session)
        # The same name after a restart, so that receipts that wait for this endpoint are completed by it.
        self.authorizer = Authorizer(self._instance, socket, given, name=f"{gethostname()}:{self.port}")
        try:
            self.authorizer.start()
            end_left_over(self.directory)
            self.server.prepare()
            self.server.start()
        except OSError as error:
            self.stop()
            raise PrivateSshdError(f"Git cannot be served from {self.directory}: {error.strerror}.") from None
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

    @property
    def running(self) -> int:
        """How many clones, fetches and pushes are under way."""
        return 0 if self.authorizer is None else self.authorizer.running

    def _watch(self) -> None:
        said = ""
        while not self._stopping.wait(RESTART_SECONDS):
            if self.server.is_running():
                said = ""
                continue
            try:
                self.server.start()
            except (PrivateSshdError, OSError) as error:
                # Another try follows: its port may be taken for a moment.
                if said != (said := str(error)):
                    log.error("Git's sshd has ended and does not start again", error=said)

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
            raise PrivateSshdError(
                f"The account {self.username} has the shell {shell}, with which sshd starts nothing. "
                f"Give it another one: usermod --shell /bin/sh {self.username}"
            )
