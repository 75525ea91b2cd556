"""Programs that tests start quickly are those that Python starts: the same words, environment, files and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests import ready_programs
from tests.ports import free_port
from tests.waiting import wait_until

# A demo host's agent, which shows what it finds first.
TEXT = """\
import os, sys
print(sys.argv, sys.path, sys.orig_argv[1:3], sys.flags.isolated, os.getcwd(), __name__)
from keyrack.agent.cli import main
sys.exit(main())
"""


def by_python(words: Sequence[str]) -> list[str]:
    """The same through a shell, which has Python itself start it."""
    return ["/bin/sh", "-c", 'exec "$@"', "sh", *words]


# What others see of an end: a thread that is waited for, what was registered, what was printed last.
ENDING = """\
import atexit, sys, threading, time
from keyrack.agent.cli import main
atexit.register(print, "registered")
threading.Thread(target=lambda: (time.sleep(0.2), print("waited for"))).start()
print("last", end="")
sys.exit({status})
"""


@pytest.mark.parametrize("file", ["out", "/dev/full"])
@pytest.mark.parametrize("status", ["0", "3", "-1", "300", "None", "'words'"])
def test_a_quickly_started_program_ends_as_one_that_python_starts(status: str, file: str, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", ENDING.format(status=status)]
    ends = []
    for given in (command, by_python(command)):
        with (tmp_path / file).open("wb") as out:
            ended = subprocess.run(given, stdout=out, stderr=subprocess.PIPE, check=False, timeout=60)
        said = (tmp_path / file).read_bytes() if file == "out" else b""
        # Of what could not be printed Python names the file, which one that is forked has opened itself.
        ends.append((ended.returncode, said, ended.stderr.split(b"\n")[-2:]))
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "words",
    [
        ("-m", "keyrack.agent", "status", "--state-dir=/nowhere"),
        ("-m", "keyrack.agent", "--version"),
        ("-m", "keyrack.cli.main", "hosts", "list", "--data", "/nowhere"),
        ("-m", "keyrack.cli.main", "serve", "--help"),
        ("-m", "keyrack.cli.main", "no-such-command"),
        ("-I", "-c", TEXT, "status", "--state-dir=/nowhere"),
    ],
    ids=lambda words: words[1],
)
def test_a_quickly_started_program_prints_as_one_that_python_starts(words: tuple[str, ...]) -> None:
    command = [sys.executable, *words]
    quickly, by_itself = (
        subprocess.run(given, capture_output=True, text=True, check=False, timeout=60)
        for given in (command, by_python(command))
    )
    assert quickly.stdout or quickly.stderr
    ends = [(ended.returncode, ended.stdout, ended.stderr) for ended in (quickly, by_itself)]
    assert ends[0] == ends[1]


def test_a_quickly_started_program_is_a_process_of_its_own(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "keyrack.cli.main", "serve", "--data=data", f"--listen=127.0.0.1:{port}"]
    environment = {**os.environ, "TZ": "Asia/Kolkata"}
    seen = []
    for given in (command, by_python(command)):
        with (tmp_path / "said").open("w+b") as said:
            process = subprocess.Popen(given, cwd=tmp_path, env=environment, stderr=said, start_new_session=True)
            try:
                wait_until(lambda: b"listening" in (tmp_path / "said").read_bytes(), "a service that listens")
                proc = Path(f"/proc/{process.pid}")
                shown = (proc / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
                parent = (proc / "stat").read_text().rpartition(")")[2].split()[1]
                seen.append((shown, os.readlink(proc / "cwd"), os.readlink(proc / "exe"), parent))
                assert os.getsid(process.pid) == process.pid
                assert os.readlink(proc / "fd/2") == str(tmp_path / "said")
            finally:
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == -signal.SIGTERM
    assert seen[0] == seen[1]
    assert [os.fsencode(word) for word in command] == seen[0][0]


def test_a_program_started_with_special_options_is_started_by_python_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(ready_programs, "_started", lambda module, *_: started.append(module))
    command = [sys.executable, "-m", "keyrack.agent", "--version"]
    limited = subprocess.run(command, preexec_fn=os.getpid, stdout=subprocess.PIPE, check=True)
    said = subprocess.run([sys.executable, "-c", "print(1)"], stdout=subprocess.PIPE, check=True)
    assert (started, said.stdout) == ([], b"1\n")
    assert limited.stdout.startswith(b"keyrack-agent")
    subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert started == ["keyrack.agent"]
