"""Keys of Keyrack open accounts whose homes are away or do not answer, as its files lie elsewhere."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest

from tests.agent.network_home import BROKEN, HANGS, STALE, mounted
from tests.login.test_proven_enforcing import Scene
from tests.login.test_proven_enforcing import scene as scene
from tests.waiting import wait_until


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="a file system of one's own takes FUSE")
def test_no_home_is_needed_where_the_host_enforces(scene: Scene, tmp_path: Path) -> None:
    scene.start()
    scene.enforced()
    home = Path(pwd.getpwnam("krone").pw_dir)
    away = home.with_name("kr-away")
    home.rename(away)
    assert scene.host.client.lets_in(scene.key, "krone")
    away.rename(home)
    with mounted(home, pwd.getpwnam("krone").pw_uid, "", tmp_path) as far:
        for how in (STALE, BROKEN):
            far.answers(how)
            assert scene.host.client.lets_in(scene.key, "krone")
        far.answers(HANGS)
        log = scene.host.folder / "sshd.log"
        before = log.read_bytes().count(b"Accepted publickey for krone")
        client = scene.host.client
        given = ["ssh", "-F", "/dev/null", "-i", str(scene.key.path), "-p", str(scene.host.port), "-o", "BatchMode=yes"]
        given += ["-o", f"UserKnownHostsFile={client.known_hosts}", "-o", "IdentitiesOnly=yes", "krone@127.0.0.1"]
        waiting = subprocess.Popen([*given, "true"])
        # It is let in, and then waits for its home as any session does.
        wait_until(lambda: log.read_bytes().count(b"Accepted publickey for krone") > before, "a key that is taken")
        assert waiting.poll() is None
        far.end()
        assert waiting.wait(60) == 0
