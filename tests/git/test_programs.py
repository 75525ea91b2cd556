"""The programs that sshd starts, in C and in Python, before a service that answers what is no answer."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from keyrack.git import build

LINE = b'command="x",restrict ssh-ed25519 AAAA'
ANSWERS = {
    "nothing": b"",
    "half a length": b"\0\0",
    "no fields": b"\0\0\0\0",
    "less than it says": (len(LINE) + 6).to_bytes(4, "big") + b"line\0" + LINE[:12],
    "no end": b"\0\0\0\x0aline\0short",
    "no line": b"\0\0\0\x05line\0",
    "two lines": b"\0\0\0\x09line\0a\nb\0",
    "too much": b"\x7f\xff\xff\xffline\0",
    "another word": b"\0\0\0\x06other\0",
    "a word alone": b"\0\0\0\x06serve\0",
    "a refusal without words": b"\0\0\0\x09refuse\x001\0",
}


@pytest.fixture(scope="module", params=["C", "Python"])
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What starts each program."""
    if request.param == "C" and not shutil.which("cc"):
        pytest.skip("no C compiler here")
    return build.build(tmp_path_factory.mktemp("programs"), compiler=None if request.param == "C" else "")


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """A service that answers whoever asks first so, and goes away."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            asking, _ = listener.accept()
            with asking:
                asking.recv(65536)
                asking.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        yield
        server.join(30)


def run(program: list[str], path: Path) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ["PATH"], "SSH_ORIGINAL_COMMAND": "git-upload-pack 'a/b.git'"}
    asked = [*program, str(path), "SHA256:abc"]
    return subprocess.run(asked, capture_output=True, check=False, timeout=60, env=environment)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_malformed_answer_of_the_service_gives_sshd_no_key(
    programs: dict[str, list[str]], tmp_path: Path, answer: bytes
) -> None:
    with answering(tmp_path / "s", answer):
        looked_up = run(programs["lookup"], tmp_path / "s")
    assert (looked_up.returncode, looked_up.stdout, looked_up.stderr) == (1, b"", b"")


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_malformed_answer_of_the_service_starts_no_git(
    programs: dict[str, list[str]], tmp_path: Path, answer: bytes
) -> None:
    with answering(tmp_path / "s", answer):
        served = run(programs["session"], tmp_path / "s")
    assert served.returncode == 75
    assert served.stdout == b""
    assert served.stderr == b"Keyrack: Git is not available at the moment; try again.\n"


def test_git_is_stopped_where_the_service_stands_still(programs: dict[str, list[str]], tmp_path: Path) -> None:
    """It may be away for no time here; who is asked again and says nothing either is not there."""
    path = tmp_path / "socket"
    fields = (b"serve", b"0", b"", b"0", b"0", b"0", b"0", b"/bin/sleep", b"200")
    payload = b"".join(field + b"\0" for field in fields)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        began = time.monotonic()
        with subprocess.Popen([*programs["session"], str(path), "SHA256:x"], stderr=subprocess.PIPE) as session:
            asking, _ = listener.accept()
            with asking:
                asking.recv(65536)
                asking.sendall(len(payload).to_bytes(4, "big") + payload)
                time.sleep(1)
                asking.sendall(b"\0\0\0\x03go\0")
                said = session.communicate(timeout=120)[1]
    assert session.returncode == 77
    assert b"your rights cannot be confirmed at the moment" in said
    assert time.monotonic() - began > 25, "what it received counts, and is no end"
