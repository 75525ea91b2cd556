"""The agent's real command where the system fails it once, at every place: old or new files, words, and recovery."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.agent.enrolled_host import EnrolledHost
from tests.agent.small_service import SmallService
from tests.agent.test_faults import LONG, Revisions

CODES = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail."""
    return compiled(tmp_path_factory)


def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, compiled here."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("making system calls fail takes a C compiler (gcc)")
    library = tmp_path_factory.mktemp("shim") / "failing_calls.so"
    source = Path(__file__).parent / "failing_calls.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True, timeout=120)
    return library


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("call", ["open", "write", "fsync", "rename"])
@pytest.mark.parametrize("code", list(CODES) if LONG else ["EIO"])
def test_each_call_of_a_kind_fails_once(
    host: EnrolledHost, service: SmallService, shim: Path, tmp_path: Path, call: str, code: str
) -> None:
    revisions = Revisions(service)
    revisions.publish()
    assert host.agent("run", "--once").returncode == 0
    count = tmp_path / "count"
    number = 0
    while True:
        number += 1 if LONG or number < 3 else 3
        revisions.publish()
        before = host.files()
        count.unlink(missing_ok=True)
        ended = host.agent(
            "run",
            "--once",
            environment={
                "LD_PRELOAD": str(shim),
                "FAIL_CALL": call,
                "FAIL_AT": str(number),
                "FAIL_ERRNO": str(CODES[code]),
                "FAIL_BELOW": str(host.folder),
                "FAIL_COUNT": str(count),
            },
        )
        if count.stat().st_size < number:
            break
        after = host.files()
        for name in after.keys() | before.keys():
            if not name.startswith(".keyrack-"):
                assert after[name] in (before[name], revisions.latest[name]), f"{call} number {number}: {name}"
        # It says what was wrong, or nothing that matters was: the files are the new ones.
        is_explained = os.strerror(CODES[code]) in ended.stderr or "damaged" in ended.stderr
        assert is_explained or after == revisions.latest, f"{call} number {number}: {ended.stderr}"
        assert "Traceback" not in ended.stderr, ended.stderr
        again = host.agent("run", "--once")
        assert again.returncode == 0, again.stderr
        assert host.files() == revisions.latest, f"{call} number {number} failed once, and it did not heal"
    assert number > 1
