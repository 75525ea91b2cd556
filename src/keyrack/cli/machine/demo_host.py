"""A private sshd on loopback with the real agent beside it, for trying Keyrack on one machine; not for production.

Nothing outside its own folder is touched: own host keys, own settings, own key files. It runs as whoever
calls, and is meant for logging in as the same account.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import keyrack
from keyrack.private_sshd import (
    RESTART_SECONDS,
    START_SECONDS,
    PrivateSshd,
    PrivateSshdError,
    command_line,
    descendants,
    end,
    kill,
    safe_place,
    wait_until_gone,
)

# -I: neither the caller's PYTHONPATH nor its folder may change what the agent is. It runs from this installation, which
# is compiled already; the single file that hosts get would be compiled at each start.
_AGENT = """\
import sys
sys.path.append(sys.argv.pop(1))
from keyrack.agent.cli import main
sys.exit(main())
"""
_PACKAGES = Path(keyrack.__file__).parent.parent


class DemoSshd(PrivateSshd):
    """The demo host's sshd, as messages name it."""

    what = "the demo host's sshd"
    port_option = "--sshd-port"


class DemoHost:
    """The private sshd and the agent that keeps its keys, started, watched and stopped together.

    directory: where its parts go, unless sshd would find it unsafe there. Use: prepare(), then enrol() when
    is_enrolled() is False, then start(); stop() at the end. username is whom one can log in as.
    """

    def __init__(self, directory: Path, port: int, sshd: Path) -> None:
        self.directory = safe_place(directory)
        self.username = pwd.getpwuid(os.geteuid()).pw_name
        self.server = DemoSshd(self.directory, port, sshd)
        self.agent_state = self.directory / "agent"
        self.agent_log = self.directory / "agent.log"
        self._agent: subprocess.Popen[bytes] | None = None
        self._changing = threading.Lock()  # else the watcher could start an agent again that was just ended
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where sshd listens, on ADDRESS."""
        return self.server.port

    @property
    def known_hosts(self) -> Path:
        """A known_hosts file for this sshd."""
        return self.server.known_hosts

    def is_enrolled(self, url: str) -> bool:
        """Whether the agent has a secret of its own already, and asks this address and writes these files with it.

        Another --listen, and a data folder that was moved, make a new host: its agent would ask, or write, in vain.
        """
        try:
            noted = json.loads((self.agent_state / "enrolment.json").read_text("utf-8"))
            return (noted["url"], noted["keys_folder"]) == (url, str(self.server.keys))
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def prepare(self) -> None:
        """Write everything that does not need the service. Raises PrivateSshdError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.end_left_over()
        self.server.prepare()

    def enrol(self, url: str, token: str, *, replace: bool = False) -> None:
        """Enrol the agent at the service with a one-time token. Raises PrivateSshdError with the agent's words."""
        ended = self._run_agent(
            "enroll",
            f"--keys-dir={self.server.keys}",
            f"--revoked-keys={self.server.revoked_keys}",
            f"--sshd-config={self.server.config}",
            f"--drop-in={self.server.drop_in}",
            *(["--replace"] if replace else []),
            environment={"KEYRACK_AGENT_URL": url, "KEYRACK_AGENT_TOKEN": token},
        )
        if ended.returncode != 0:
            raise PrivateSshdError(f"The demo host's agent did not enrol:\n{ended.stderr.strip()}")

    def start(self) -> None:
        """Start sshd and the agent, and keep both running. Raises PrivateSshdError."""
        self.server.start()
        self._start_agent()
        self._watcher = threading.Thread(target=self._watch, name="demo host", daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """End the agent, sshd and its sessions; may be called twice."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(timeout=START_SECONDS)
            self._watcher = None
        self.stop_agent()
        self.server.stop()
        self._pids.unlink(missing_ok=True)

    def stop_agent(self) -> None:
        """End the agent alone."""
        with self._changing:
            if self._agent is not None:
                end(self._agent)
                self._agent = None

    @property
    def _pids(self) -> Path:
        return self.directory / "running"

    def _command(self, *arguments: str) -> list[str]:
        given = [sys.executable, "-I", "-c", _AGENT, str(_PACKAGES)]
        return [*given, *arguments, f"--state-dir={self.agent_state}"]

    def _run_agent(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._command(*arguments),
            env={**_environment(), **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd="/",
        )

    def _start_agent(self) -> None:
        with self.agent_log.open("ab") as log:
            self._agent = subprocess.Popen(
                self._command("run", f"--sshd-log={self.server.log}"),
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        self._note_pids()

    def _watch(self) -> None:
        while not self._stopping.wait(RESTART_SECONDS):
            with self._changing:
                if self._agent is not None and self._agent.poll() is not None:
                    self._start_agent()
            if not self.server.is_running():
                # The next round tries again: the port may be taken for a moment.
                with contextlib.suppress(PrivateSshdError, OSError):
                    self.server.start()
                    self._note_pids()

    def _note_pids(self) -> None:
        pids = (self._agent.pid if self._agent is not None else 0, self.server.pid)
        self._pids.write_text("".join(f"{pid}\n" for pid in pids if pid), "ascii")

    def end_left_over(self) -> None:
        """End what an earlier run that was killed has left: only processes that name this very folder."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            for pid in map(int, self._pids.read_text("ascii").split()):
                if str(self.directory) in command_line(pid):
                    for one in (*descendants(pid), pid):
                        kill(one, signal.SIGTERM)
                    wait_until_gone(pid)
            self._pids.unlink()


def _environment() -> dict[str, str]:
    """The agent's environment: nothing of ours but the path of programs."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
