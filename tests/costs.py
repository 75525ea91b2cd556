"""What tests cost, in seconds of processors and of the clock, by folder; must change no test and no outcome.

Several run at once and wait a lot: how long the whole takes follows from the processors' seconds, not the clock's.
"""

from __future__ import annotations

import resource
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import PurePosixPath

import pytest

_at = 0.0
_processors: defaultdict[str, float] = defaultdict(float)
_clock: defaultdict[str, float] = defaultdict(float)
_tests: Counter[str] = Counter()


def pytest_addoption(parser: pytest.Parser) -> None:
    """--costs: by file too."""
    parser.addoption("--costs", action="store_true", help="say what each file of tests cost, not only each folder")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In the process that ran it: note what this phase of a test cost."""
    report = yield
    global _at
    now = _spent()
    vars(report)["processors"] = now - _at
    _at = now
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In the process that counts: add it up."""
    path = PurePosixPath(report.nodeid.partition("::")[0])
    folder = path.parts[1] if len(path.parts) > 2 else path.parts[0]
    for name in (folder, str(path)):
        _processors[name] += vars(report).get("processors", 0.0)
        _clock[name] += report.duration
        _tests[name] += report.when == "call"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print it, the dearest first."""
    files = config.getoption("--costs")
    chosen = [name for name in _tests if name.endswith(".py") == bool(files)]
    if len(chosen) < 2 and not files:
        return
    terminalreporter.section("seconds of processors, seconds of tests, tests")
    for name in sorted(chosen, key=lambda one: -_processors[one]):
        terminalreporter.write_line(f"{_processors[name]:8.1f} {_clock[name]:8.1f} {_tests[name]:6} {name}")
    if config.getoption("workers", 0):
        used = resource.getrusage(resource.RUSAGE_SELF)
        terminalreporter.write_line(f"{used.ru_utime + used.ru_stime:8.1f}                 to load and collect them")


def _spent() -> float:
    """What this process and its ended children have used. Children that still run are counted once they end."""
    both = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)
