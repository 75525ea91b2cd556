"""A private sshd beside the machine's, for the demo host and for Git; must touch nothing outside its folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from keyrack.agent.system.folder import unsafe_because

ADDRESS = "127.0.0.1"
HOST_KEY_TYPES = ("ed25519", "ecdsa")
START_SECONDS = 20.0
STOP_SECONDS = 5.0
# How long a part that died is left alone before it is started again.
RESTART_SECONDS = 1.0
# Follows words that say what there cannot be without it.
HOW_TO_GET_SSHD = (
    "It comes with OpenSSH's server: "
    "`apt-get install openssh-server` on Debian and Ubuntu, `dnf install openssh-server` on Fedora and "
    "Red Hat, `apk add openssh` on Alpine."
)


LAST_LINES = 5
"""So many lines of its log are shown where it does not start."""

# Whether an sshd knows a setting; of the module, as a program on the disk answers the same to everybody who asks.
_known: dict[tuple[Path, str], bool] = {}


class PrivateSshdError(Exception):
    """It cannot run; the words say why and what to do."""


def find_sshd() -> Path | None:
    """sshd's absolute path (it refuses to be started by any other), or None; HOW_TO_GET_SSHD says more."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    for folder in (*folders, "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"):
        path = Path(folder) / "sshd"
        if path.is_absolute() and os.access(path, os.X_OK):
            return path
    return None


class PrivateSshd:
    """One sshd in the foreground with everything of its own in `directory`, which must pass StrictModes.

    keys: the folder with one file an account; revoked_keys must exist before a login. What is written to
    drop_in comes before all other settings, and the first one of a kind counts (sshd_config(5)). A sshd for
    another purpose overrides own_settings().
    """

    # How messages name it, and the option that gives it another port.
    what = "the private sshd"
    port_option = "another number"

    def __init__(self, directory: Path, port: int, sshd: Path, address: str = ADDRESS) -> None:
        self.directory = directory
        self.address = address
        self.port = port
        self.keys = directory / "keys"
        self.revoked_keys = directory / "revoked_keys"
        self.config = directory / "sshd_config"
        self.drop_in = directory / "drop-in.conf"
        self.known_hosts = directory / "known_hosts"
        self.log = directory / "sshd.log"
        self._sshd = sshd
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Write host keys, settings and known_hosts; what is there already stays. Raises PrivateSshdError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            # Debian's sshd gives up its rights inside this folder, without which it does not even say whether it knows
            # a setting; only its service file makes it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for key_type in HOST_KEY_TYPES:
            path = self._host_key(key_type)
            if not path.exists():
                _run(["ssh-keygen", "-q", "-t", key_type, "-N", "", "-C", "", "-f", str(path)])
        self.drop_in.touch()
        self.config.write_text(self._settings(), "utf-8")
        lines = [self._host_key(key_type).with_suffix(".pub").read_text("ascii") for key_type in HOST_KEY_TYPES]
        place = f"[{self._near}]:{self.port}"
        self.known_hosts.write_text("".join(f"{place} {line.rstrip()}\n" for line in lines), "ascii")
        _run([str(self._sshd), "-t", "-f", str(self.config)])

    def start(self) -> None:
        """Start and return once it greets. Raises PrivateSshdError, which names the port where that is the reason."""
        with socket.socket(socket.AF_INET6 if ":" in self.address else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.address, self.port))
            except OSError as error:
                raise PrivateSshdError(
                    f"Port {self.port} on {self.address} cannot be used for {self.what} ({error.strerror}). "
                    f"Choose another one with {self.port_option}."
                ) from None
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._sshd), "-D", "-e", "-f", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._greets():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise PrivateSshdError(f"{self.what[0].upper()}{self.what[1:]} did not start:\n{last_lines(self.log)}")
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        """The number of the process that listens, while it was started; 0 otherwise."""
        return self._process.pid if self._process is not None else 0

    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End sshd and the sessions that it holds."""
        if self._process is not None:
            end(self._process, sessions=True)
            self._process = None

    def _greets(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self._near, self.port), timeout=2) as probe:
            probe.settimeout(2)
            return probe.recv(4) == b"SSH-"
        return False

    def own_settings(self) -> list[str]:
        """The settings that make it what it is for; lines of sshd_config."""
        return [
            f"AuthorizedKeysFile {quoted(self.keys)}/%u",
            f"RevokedKeys {quoted(self.revoked_keys)}",
            "ExposeAuthInfo yes",
            "AcceptEnv LANG LC_*",
            "Subsystem sftp internal-sftp",
            "MaxStartups 200",
        ]

    @property
    def _near(self) -> str:
        """An address of this machine at which it answers."""
        return {"0.0.0.0": ADDRESS, "::": "::1"}.get(self.address, self.address)  # noqa: S104

    def _host_key(self, key_type: str) -> Path:
        return self.directory / f"ssh_host_{key_type}_key"

    def _settings(self) -> str:
        lines = [
            f"Include {quoted(self.drop_in)}",
            f"ListenAddress {self.address}",
            f"Port {self.port}",
            *(f"HostKey {quoted(self._host_key(key_type))}" for key_type in HOST_KEY_TYPES),
            *self.own_settings(),
            f"PidFile {quoted(self.directory / 'sshd.pid')}",
            "PubkeyAuthentication yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "StrictModes yes",
            "LogLevel VERBOSE",
            "PrintMotd no",
            f"UsePAM {'yes' if _needs_pam() else 'no'}",
        ]
        # OpenSSH 9.8 and newer shut out an address after some refusals; here all come from one. bash reads ~/.bashrc
        # for each command over SSH unless it believes itself within another shell; what stands there may take a while.
        lines += [line for line in ("PerSourcePenalties no", "SetEnv SHLVL=1") if self._knows(line)]
        return "".join(f"{line}\n" for line in lines)

    def _knows(self, line: str) -> bool:
        asked = (self._sshd, line)
        if asked not in _known:
            key = str(self._host_key("ed25519"))
            given = [str(self._sshd), "-t", "-f", os.devnull, "-h", key, "-o", line.replace(" ", "=")]
            _known[asked] = subprocess.run(given, capture_output=True, check=False, timeout=30).returncode == 0
        return _known[asked]


def safe_place(directory: Path) -> Path:
    """`directory`, or the nearest other place where sshd's StrictModes accepts key files. Raises PrivateSshdError.

    Under /tmp, for example, sshd would refuse every key.
    """
    name = f"demo-{hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:12]}"
    places = [directory]
    if os.geteuid() == 0:
        places.append(Path("/var/lib/keyrack") / name)
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    state = os.environ.get("XDG_STATE_HOME", "")
    places += [Path(state) / "keyrack" / name] if os.path.isabs(state) else []
    places.append(home / ".local" / "state" / "keyrack" / name)
    reasons = []
    for place in places:
        problem = _unsafe(place)
        if problem is None:
            return place.absolute()
        reasons.append(problem)
    raise PrivateSshdError("There is no place where sshd would accept key files: " + "; ".join(reasons))


def last_lines(path: Path) -> str:
    """The end of a log."""
    try:
        return "\n".join(path.read_text("utf-8", "replace").split("\n")[-LAST_LINES - 1 :]).strip()
    except OSError as error:
        return f"({path}: {error.strerror})"


def _unsafe(place: Path) -> str | None:
    """Why key files must not lie in `place`, which need not exist yet."""
    nearest = place.absolute()
    while not nearest.exists():
        nearest = nearest.parent
    if not os.access(nearest, os.W_OK):
        return f"{nearest} cannot be written"
    return unsafe_because(str(nearest))


def _needs_pam() -> bool:
    """Whether sshd would take the calling account for locked without PAM: "!" in the shadow file (sshd(8))."""
    if os.geteuid() != 0 or not Path("/etc/pam.d/sshd").exists():
        return False
    name = pwd.getpwuid(0).pw_name
    with contextlib.suppress(OSError):
        for line in Path("/etc/shadow").read_text("utf-8", "replace").split("\n"):
            account, _, rest = line.partition(":")
            if account == name:
                return rest.startswith("!")
    return False


def quoted(path: Path) -> str:
    """A path as sshd_config takes it: in quotes; % starts a token. Raises PrivateSshdError."""
    text = str(path).replace("%", "%%")
    if '"' in text or "\n" in text:
        raise PrivateSshdError(f"A sshd cannot lie in {path}: its settings cannot name it.")
    return f'"{text}"'


def _run(arguments: Sequence[str]) -> None:
    program = shutil.which(arguments[0])
    if program is None:
        raise PrivateSshdError(f"{arguments[0]} was not found; install OpenSSH's client programs.")
    ended = subprocess.run([program, *arguments[1:]], capture_output=True, text=True, check=False, timeout=60)
    if ended.returncode != 0:
        raise PrivateSshdError(f"{arguments[0]} failed: {(ended.stderr or ended.stdout).strip()}")


def end(process: subprocess.Popen[bytes], *, sessions: bool = False) -> None:
    """SIGTERM, then SIGKILL. sessions: those that sshd holds too, each a process group of its own."""
    children = descendants(process.pid) if sessions else []
    if process.poll() is None:
        kill(process.pid, signal.SIGTERM)
    for child in children:
        kill(child, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:
        kill(child, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started, where /proc tells."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int((entry / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def command_line(pid: int) -> str:
    """How a process was called; empty when it is gone. sshd rewrites its own, but keeps its arguments."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            listed = subprocess.run(
                ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False, timeout=10
            )
            return listed.stdout.decode("utf-8", "replace")
    return ""


def end_left_over(directory: Path) -> None:
    """End the sshd in a folder that an earlier run left when it was killed; the sessions that it holds go on."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((directory / "sshd.pid").read_text("ascii"))
        if str(directory) in command_line(pid):
            kill(pid, signal.SIGTERM)
            wait_until_gone(pid)


def wait_until_gone(pid: int) -> None:
    """Return once a process has ended, by force if it takes too long."""
    deadline = time.monotonic() + STOP_SECONDS
    while command_line(pid):
        if time.monotonic() > deadline:
            kill(pid, signal.SIGKILL)
            return
        time.sleep(0.02)


def kill(pid: int, number: signal.Signals) -> None:
    """Signal a process that may be gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def is_roots(path: str) -> bool:
    """Whether a program and every folder above it belong to root, and nobody else may write to them."""
    current = os.path.realpath(path)
    if unsafe_because(current) is not None:
        return False
    while os.lstat(current).st_uid == 0:
        if current == os.path.dirname(current):
            return True
        current = os.path.dirname(current)
    return False
