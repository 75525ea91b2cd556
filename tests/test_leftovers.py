"""A run of tests that is killed, or stopped twice at the keyboard, leaves no database, no program and no folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import own_machine
from tests.postgres import MEMORY
from tests.processes import is_alive
from tests.waiting import DEADLINE_SECONDS, wait_until

ROOT = Path(__file__).parent.parent
# Another session and no parent, as sshd, PostgreSQL and agents that run by themselves have.
FILE = """
import subprocess, time
from pathlib import Path
from tests.login.private_sshd import strict_folder

def test_it(cluster):
    with strict_folder() as folder:
        names = "unshare --mount" if {own} else ""
        subprocess.run(["/bin/sh", "-c", f"setsid {names} sleep 987 & echo $! >{said}/sleeps"], check=True)
        Path("{said}/ready").write_text(f"{cluster.folder}\\n{folder}", "utf-8")
        try:
            time.sleep(600)
        finally:
            time.sleep(600)
"""


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_a_stopped_or_killed_run_of_tests_leaves_nothing_behind(
    tmp_path: Path, way: signal.Signals, workers: str
) -> None:
    own = own_machine.can_be_taken()
    text = FILE.replace("{said}", str(tmp_path)).replace("{own}", str(own))
    (tmp_path / "test_file.py").write_text(text, "utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.databases", "-p", "tests.workers", "-n", workers]
    given = [*command, "-p", "no:xdist", "-p", "no:xdist.looponfail", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("KEYRACK_TESTS_WORKER", None)
    with (tmp_path / "output").open("wb") as output:
        run = subprocess.Popen(
            [*given, f"--basetemp={tmp_path / 'temporary'}", str(tmp_path)],
            env=environment,
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # A shell starts what runs in the background with this signal ignored, and so would all below it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    ready = tmp_path / "ready"
    wait_until(lambda: ready.exists() or run.poll() is not None, "a test at work")
    assert ready.exists(), (tmp_path / "output").read_text("utf-8")
    folders = [Path(line) for line in ready.read_text("utf-8").split("\n")]
    database = int((folders[0] / "data/postmaster.pid").read_text("ascii").split("\n")[0])
    maps = Path(f"/proc/{database}/maps").read_text("utf-8")
    shared = [path for path in MEMORY.glob("PostgreSQL.*") if str(path) in maps]
    sleeps = int((tmp_path / "sleeps").read_text("ascii"))
    assert is_alive(database)
    assert is_alive(sleeps)
    os.killpg(run.pid, way)
    began = time.monotonic()
    while way is signal.SIGINT and run.poll() is None:  # what is tidied up is stopped too
        assert time.monotonic() < began + DEADLINE_SECONDS, "it does not stop"
        time.sleep(0.5)
        os.killpg(run.pid, way)
    run.wait(60)
    wait_until(lambda: not is_alive(database), "a database that ended")
    wait_until(lambda: not any(folder.exists() for folder in folders), "folders that are gone")
    assert shared
    assert not [path for path in shared if path.exists()]
    if own:
        wait_until(lambda: not is_alive(sleeps), "a program that ended")
    else:
        os.kill(sleeps, signal.SIGKILL)
