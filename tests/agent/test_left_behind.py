"""What a session leaves behind when its connection goes still ends with its key: real sshd, ssh and agent."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.agent.sessions.session_processes import LoginSession, SessionMarks, processes_of
from keyrack.agent.system import processes
from keyrack.protocol.host_document import AuthorizedKey
from keyrack.ssh.public_key import fingerprint_of
from tests.agent.small_service import SmallService
from tests.agent.watched_host import Watched, enrolled
from tests.login.private_sshd import USERNAME, Key
from tests.processes import is_alive, pid_in
from tests.waiting import wait_until


@pytest.fixture
def watched(folder: Path, service: SmallService) -> Iterator[Watched]:
    """sshd and the agent, with nothing published yet."""
    with enrolled(folder, service) as host:
        yield host


# A way to sshd that waits, once it is connected, until a file is there.
WAITING = """import os, select, socket, sys, time
sshd = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
with open(sys.argv[2], "w") as file:
    file.write(str(sshd.getsockname()[1]))
while not os.path.exists(sys.argv[3]):
    time.sleep(0.05)
while True:
    ready = select.select([0, sshd], [], [])[0]
    if 0 in ready:
        sshd.sendall(os.read(0, 65536))
    if sshd in ready and not os.write(1, sshd.recv(65536)):
        break
"""


class Scene:
    """A key that will go, one that stays, and what each has started on the host."""

    def __init__(self, watched: Watched, folder: Path) -> None:
        self.watched = watched
        self.folder = folder
        self.gone, self.stays = Key.make(folder / "gone"), Key.make(folder / "stays")
        self._started: list[int] = []
        folder.chmod(0o755)
        watched.publish({USERNAME: [AuthorizedKey(self.gone.public), AuthorizedKey(self.stays.public)]})

    def start(self, key: Key, name: str, form: str) -> tuple[subprocess.Popen[bytes], int]:
        """Run a long command with a key; answers its client and its number. form: the command, with {} in it."""
        path = self.folder / name
        client = self.watched.ssh(key, command=form.format(f"sh -c 'echo $$ > {path}; exec sleep 1000'"))
        pid = pid_in(path)
        self._started.append(pid)
        return client, pid

    def leave(self, key: Key, name: str, form: str = "{}") -> int:
        """The same, and then the client is killed and the connection gone; the command runs on."""
        before = {session["id"] for session in self.watched.reported_sessions()}
        client, pid = self.start(key, name, form)
        fresh: set[str] = set()

        def known() -> bool:
            fresh.update({session["id"] for session in self.watched.reported_sessions()} - before)
            return bool(fresh)

        wait_until(known, "the session in a report")
        client.kill()
        client.wait()
        sshd = int(next(iter(fresh)).partition("-")[0])
        wait_until(lambda: not is_alive(sshd), "the end of the connection")
        assert is_alive(pid)
        return pid

    def revoke(self) -> None:
        self.watched.publish({USERNAME: [AuthorizedKey(self.stays.public)]}, revoked=(self.gone.public,))

    def close(self) -> None:
        for pid in self._started:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def scene(watched: Watched, tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(watched, tmp_path)
    yield scene
    scene.close()


def ends(pid: int) -> None:
    wait_until(lambda: not is_alive(pid), "the end of what the key had started")


# Away from its connection in each way that programs have: in the foreground, with nohup, in a session of its own.
FORMS = ("{}", "nohup {} >/dev/null 2>&1 & sleep 1000", "setsid -f {} >/dev/null 2>&1; sleep 1000")


@pytest.mark.parametrize("form", FORMS)
def test_a_command_whose_client_died_ends_with_its_key(scene: Scene, form: str) -> None:
    left = scene.leave(scene.gone, "left", form)
    spared = scene.leave(scene.stays, "spared", form)
    _, other = scene.start(scene.stays, "other", "{}")
    fingerprints = {session["fingerprint"] for session in scene.watched.reported_sessions()}
    assert fingerprint_of(scene.gone.public) in fingerprints
    scene.revoke()
    ends(left)
    assert is_alive(spared)
    assert is_alive(other)


def test_a_process_left_behind_ends_with_its_key_after_a_restart_of_the_agent(scene: Scene) -> None:
    left = scene.leave(scene.gone, "left")
    scene.watched.kill_agent()
    scene.watched.start_agent()
    scene.revoke()
    ends(left)


def test_a_login_too_short_to_be_seen_leaves_nothing_behind_either(scene: Scene) -> None:
    client, left = scene.start(scene.gone, "left", "setsid -f {} >/dev/null 2>&1 </dev/null")
    client.wait(60)
    scene.revoke()
    ends(left)


def test_a_left_session_can_be_ended_by_its_name(scene: Scene) -> None:
    left = scene.leave(scene.gone, "left")
    spared = scene.leave(scene.stays, "spared")
    sessions = scene.watched.reported_sessions()
    (name,) = [one["id"] for one in sessions if one["fingerprint"] == fingerprint_of(scene.gone.public)]
    users = {USERNAME: [AuthorizedKey(scene.gone.public), AuthorizedKey(scene.stays.public)]}
    scene.watched.publish(users, end_sessions=(name,))
    ends(left)
    assert is_alive(spared)


def test_sessions_outlive_their_listener_and_still_end(scene: Scene) -> None:
    """sshd started anew leaves the connections of the old one to process 1."""
    client, left = scene.start(scene.gone, "left", "{}")
    wait_until(scene.watched.reported_sessions, "the session in a report")
    os.kill(scene.watched.sshd.pid, signal.SIGKILL)
    wait_until(lambda: not scene.watched.sshd.is_running(), "the listener's end")
    assert is_alive(left)
    scene.watched.sshd.start()
    scene.revoke()
    ends(left)
    client.wait(60)


@pytest.mark.parametrize("user", [USERNAME, "root-or-whoever"])
def test_a_line_that_somebody_wrote_before_sshd_did_keeps_no_session_alive(scene: Scene, user: str) -> None:
    """Every account can write into syslog's file, and who waits before the proof knows what sshd will log."""
    port, go, command = scene.folder / "port", scene.folder / "go", scene.folder / "command"
    way = shlex.join([sys.executable, "-c", WAITING, str(scene.watched.sshd.port), str(port), str(go)])
    client = scene.watched.ssh(scene.gone, f"-oProxyCommand={way}", command=f"echo $$ > {command}; exec sleep 1000")
    wait_until(lambda: port.exists() and port.read_text(), "a connection")
    forged = fingerprint_of(scene.stays.public)
    with scene.watched.sshd.log.open("a") as log:
        line = f"Accepted publickey for {user} from 127.0.0.1 port {port.read_text()} ssh2: ED25519 {forged}"
        log.write(f"{line}\n" * 2000)
    (session,) = scene.watched.wait_for_sessions(1)
    assert session["fingerprint"] == forged
    go.touch()
    left = pid_in(command)
    noted = scene.watched.host.state / "sessions.json"
    wait_until(lambda: fingerprint_of(scene.gone.public) in noted.read_text(), "sshd's own line to be read")
    scene.revoke()
    ends(left)
    client.wait(60)


def test_a_line_that_names_a_key_which_was_never_let_in_ends_no_session(scene: Scene) -> None:
    client, pid = scene.start(scene.stays, "stays", "{}")
    (session,) = scene.watched.wait_for_sessions(1)
    (port,) = {number for _, number in processes.peers(int(session["id"].partition("-")[0]))}
    never = Key.make(scene.folder / "never").public
    with scene.watched.sshd.log.open("a") as log:
        line = f"Accepted publickey for {USERNAME} from 127.0.0.1 port {port} ssh2: ED25519 {fingerprint_of(never)}"
        log.write(f"{line}\n")
    noted = scene.watched.host.state / "sessions.json"
    wait_until(lambda: fingerprint_of(never) + '", [], false' in noted.read_text(), "the line to be judged")
    scene.watched.publish({USERNAME: [AuthorizedKey(scene.stays.public)]}, revoked=(never,))
    scene.watched.kill_agent()
    scene.watched.start_agent()
    scene.watched.publish({USERNAME: [AuthorizedKey(scene.stays.public)]}, revoked=(never, scene.gone.public))
    assert is_alive(pid)
    assert client.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes as somebody else")
def test_another_account_cannot_be_drawn_in(scene: Scene) -> None:
    """An environment says what whoever started the process likes."""
    left = scene.leave(scene.gone, "left")
    environment = Path(f"/proc/{left}/environ").read_text().split("\0")
    connection = next(entry for entry in environment if entry.startswith("SSH_CONNECTION=")).partition("=")[2]
    stranger = subprocess.Popen(["sleep", "1000"], env={"SSH_CONNECTION": connection}, user=65534)
    try:
        scene.revoke()
        ends(left)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_the_agent_itself_started_is_not_ended(tmp_path: Path) -> None:
    """Somebody started it by hand in a session; this process stands for it."""
    started = processes.ticks_now() - 1
    session = LoginSession(0, started, USERNAME, "192.0.2.7", 4711, "SHA256:of-a-key")
    environment = {"SSH_CONNECTION": "192.0.2.7 4711 192.0.2.1 22", "PATH": os.environ["PATH"]}
    path = tmp_path / "daemon"
    script = f"setsid -f sh -c 'echo $$ > {path}; exec sleep 1000' >/dev/null 2>&1"
    child = subprocess.Popen(["sleep", "1000"], env=environment)
    try:
        subprocess.run(["sh", "-c", script], env=environment, check=True)
        daemon = pid_in(path)
        found = processes_of(session, SessionMarks(session, frozenset()), frozenset(), ())
        os.kill(daemon, signal.SIGKILL)
        assert daemon in found
        assert child.pid not in found
    finally:
        child.kill()
        child.wait()
