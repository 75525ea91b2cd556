"""A program of any account that calls itself sshd is not taken for one: root runs and reads nothing of it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from keyrack.agent.keys.unmanaged_keys import Scanner
from keyrack.agent.sessions.sessions import Sessions
from keyrack.agent.sshd import listening, settings
from keyrack.agent.sshd.host_keys import HostKeyScan
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.system import processes
from keyrack.private_sshd import PrivateSshd
from tests.login.observed_host import accounts
from tests.login.private_sshd import private_sshd, strict_folder
from tests.ports import free_port
from tests.waiting import wait_until

NAME = "krfalse"
# Started with a listening socket; it shows nothing of itself, and what runs it as root leaves a mark.
FALSE = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "-V")) return creat(MARK, 0600) < 0;
    if (geteuid() == 0) setresuid(0, 0, 0);
    prctl(PR_SET_DUMPABLE, 0);
    write(1, "ready", 5);
    for (;;) pause();
}
"""


class Scene:
    """Real sshd, and a program of another account's that is called as sshd is."""

    def __init__(self, folder: Path, server: PrivateSshd) -> None:
        self.server = server
        self.mark = folder / "mark"
        self.pipe = folder / "pipe"
        self._home = Path(pwd.getpwnam(NAME).pw_dir)
        (folder / "false.c").write_text(FALSE, "ascii")
        given = ["cc", f'-DMARK="{self.mark}"', "-o", str(folder / "false"), str(folder / "false.c")]
        if subprocess.run(given, check=False).returncode:
            pytest.skip("this test compiles a small program: it needs cc")
        self.program = folder / "false"
        os.mkfifo(self.pipe)

    @contextmanager
    def false_sshd(self, port: int, *, setuid: bool) -> Iterator[int]:
        """The program at this port, started by the account, and its number; setuid: it becomes root, as sudo does."""
        program = self._home / "sshd"
        shutil.copy(self.program, program)
        program.chmod(0o4755 if setuid else 0o755)
        if not setuid:
            os.chown(program, pwd.getpwnam(NAME).pw_uid, -1)
        title = f"sshd: /usr/sbin/sshd -f {self.pipe} [listener] 0 of 10-100 startups"
        with (
            socket.create_server(("127.0.0.1", port)) as listener,
            subprocess.Popen(
                [title], executable=program, stdin=listener.fileno(), stdout=subprocess.PIPE, user=NAME, group=NAME
            ) as process,
        ):
            listener.close()
            try:
                assert process.stdout is not None
                assert process.stdout.read(5) == b"ready"
                yield process.pid
            finally:
                process.kill()


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        stack.enter_context(accounts((NAME,)))
        folder = stack.enter_context(strict_folder())
        server, _ = stack.enter_context(private_sshd(folder))
        yield Scene(folder, server)


@pytest.mark.parametrize("setuid", [False, True])
@pytest.mark.timeout(60)
def test_another_sshd_counts_only_if_it_is_roots(scene: Scene, monkeypatch: pytest.MonkeyPatch, setuid: bool) -> None:
    monkeypatch.setattr(settings, "DEFAULT_CONFIG", str(scene.server.config))
    sshd, port = Sshd(str(scene.server.config)), free_port()
    with scene.false_sshd(port, setuid=setuid) as pid:
        assert port not in {one.port for one in listening.beside(sshd.listeners())}
        assert str(scene.pipe) not in {other.config for other in sshd.beside()}
        Scanner(sshd, "/nonexistent").scan()  # it waits for no pipe
        assert not listening.is_sshd(pid)
        assert not listening.is_lone_connection(pid)
        assert processes.user(pid) == (0 if setuid else pwd.getpwnam(NAME).pw_uid)
    assert not scene.mark.exists()


@pytest.mark.parametrize("setuid", [False, True])
@pytest.mark.timeout(60)
def test_a_program_at_the_port_of_a_stopped_sshd_is_not_taken_for_it(scene: Scene, setuid: bool) -> None:
    scene.server.stop()
    wait_until(lambda: not Sshd(str(scene.server.config)).greets(), "an sshd that is down")
    sshd = Sshd(str(scene.server.config))
    with scene.false_sshd(scene.server.port, setuid=setuid):
        assert sshd.listeners() == ()
        assert sshd.running.version() > (7, 0)
        assert sshd.running.arguments() == ()
        assert HostKeyScan(sshd).keys() is None
        assert not sshd.reload().done
        sessions = Sessions(str(scene.server.config))
        sessions.update(())
        assert not sessions.listeners
    assert not scene.mark.exists()
