"""What several workers say is what one process would: each outcome once, and a worker's death is a failure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = {
    "test_together.py": """
import os
import pytest

@pytest.fixture(scope="module")
def shared():
    yield os.getpid()
    print("the end of what is shared")

@pytest.mark.parametrize("number", range(20))
def test_all_in_one_process(shared, number):
    assert shared == os.getpid()
""",
    "test_each.py": """
import os
import signal
import warnings
import pytest

@pytest.fixture(scope="session")
def badly_left():
    yield
    raise OSError("what a session ends with")

@pytest.mark.parametrize("number", range(20))
def test_passes(number, tmp_path):
    assert list(tmp_path.parent.glob("test_passes*")) and os.getppid() == int(os.environ["STARTER"])

def test_fails():
    print("said before it failed")
    assert [1, 2] == [1, 3]

def test_skips():
    pytest.skip("for a reason")

def test_warns():
    warnings.warn("a warning of a test")

def test_dies():
    os.kill(os.getpid(), signal.SIGKILL)

def test_leaves_badly(badly_left):
    pass
""",
    "test_borrowed.py": """
import os
import pytest

@pytest.mark.parametrize("number", range(9))
def test_what_stands_elsewhere_is_shared_too(lent, number):
    assert lent == os.getpid()

@pytest.mark.parametrize("number", range(9))
def test_no_others_of_the_file_need_wait_for_it(number):
    print("by", os.getpid())
""",
    "conftest.py": """
import os
import pytest
os.environ["STARTER"] = str(os.getpid())

@pytest.fixture(scope="module")
def lent():
    with open(os.path.join(os.path.dirname(__file__), "lent"), "x"):
        return os.getpid()
""",
}


@pytest.mark.parametrize("given", [("-n", "3"), ("-n", "1", "--more", "2")], ids=" ".join)
def test_every_outcome_of_every_worker_is_printed_once(tmp_path: Path, given: tuple[str, ...]) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, "ascii")
    said = _pytest(tmp_path, *given, "-rA")
    counts = set(re.findall(r"\d+ [a-z]+", said.strip().rpartition("\n")[2]))
    assert counts == {"2 failed", "60 passed", "1 skipped", "1 warning", "1 error"}, said
    assert "the process that ran it ended with -9" in said
    assert "At index 1 diff: 2 != 3" in said
    assert "said before it failed" in said
    assert "UserWarning: a warning of a test" in said
    assert "OSError: what a session ends with" in said
    assert "test_each.py:21: for a reason" in said


def test_the_first_failure_ends_the_run_with_exitfirst(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest, time\n@pytest.mark.parametrize('number', range(200))\n"
        "def test_it(number):\n    time.sleep(0.05)\n    assert number != 3\n",
        "ascii",
    )
    said = _pytest(tmp_path, "-n", "2", "-x")
    assert "1 failed" in said
    assert int(re.findall(r"(\d+) passed", said)[0]) < 199


@pytest.mark.parametrize(("idle", "workers"), [(0.0, 3), (1.1, 1)], ids=["idle", "busy"])
def test_more_join_while_processors_have_nothing_to_do(tmp_path: Path, idle: float, workers: int) -> None:
    setting = f"from tests import processors\nprocessors.IDLE, processors.SECONDS = {idle}, 0.02\n"
    (tmp_path / "conftest.py").write_text(setting, "ascii")
    (tmp_path / "test_it.py").write_text(
        "import os, pytest, time\n@pytest.mark.parametrize('number', range(20))\n"
        "def test_it(number):\n    time.sleep(0.5)\n    print('by', os.getpid())\n    assert number\n",
        "ascii",
    )
    said = _pytest(tmp_path, "-n", "1", "--more", "2", "-rA")
    assert "1 failed, 19 passed" in said
    assert len(set(re.findall(r"by (\d+)", said))) == workers


def _pytest(folder: Path, *given: str) -> str:
    command = [sys.executable, "-m", "pytest", "-p", "tests.workers", "-p", "no:xdist", "-p", "no:xdist.looponfail"]
    ended = subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--basetemp={folder / 'temporary'}", *given, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout
