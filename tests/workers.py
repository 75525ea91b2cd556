"""Runs tests side by side in forks of the process that has loaded and collected them (`-n`); must change no outcome.

To load and to collect everything takes a worker a dozen seconds of processor time: here one process does it for all.
Which tests one worker runs, one after the other: those of a file that share what is dear, as each would else start a
service, a browser or an sshd of its own for the few tests that it gets of them. Who is free takes the next group.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
import warnings
from collections.abc import Generator
from itertools import groupby
from multiprocessing.connection import Connection, wait
from typing import Any, Literal

import pytest

from tests import leftovers, own_machine, processors, ready_programs

WORKER = "KEYRACK_TESTS_WORKER"  # the variable that says which one this process is
_NUMBER = 4  # bytes of one in the queue


def pytest_addoption(parser: pytest.Parser) -> None:
    """-n and --more."""
    # A short option in small letters is pytest's own to give.
    add = parser.getgroup("workers")._addoption
    add("-n", dest="workers", type=int, default=0, help="so many processes run tests side by side")
    add("--more", type=int, default=0, help="so many more join them while processors have nothing to do")


def are_many(config: pytest.Config) -> bool:
    """Whether this run has workers."""
    option = config.option
    return bool(option.workers) and not option.usepdb and not option.collectonly


def pytest_configure(config: pytest.Config) -> None:
    """Give the process that runs tests a machine of its own; of several workers, each."""
    if config.option.collectonly:
        return
    leftovers.watch()
    if not are_many(config):
        _prepare()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nothing of a run outlives it; what this process itself has started goes once it has ended."""
    if are_many(config):
        leftovers.leave()


def _prepare() -> None:
    own_machine.take()
    if own_machine.taken:
        leftovers.tell("space", str(os.getpid()))
    ready_programs.use()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """In place of pytest's own loop, where there are workers."""
    if not are_many(session.config) or session.testsfailed:
        return None
    session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    with tempfile.TemporaryFile() as queue:
        run = _Run(session, queue.fileno())
        try:
            run.follow()
        finally:
            run.end()
    return True


class _Run:
    """Starts the workers and tells pytest what they say. queue: numbers of groups; who reads one has it."""

    def __init__(self, session: pytest.Session, queue: int) -> None:
        self._session = session
        self._groups = grouped(session.items)
        self._queue = queue
        for number in range(len(self._groups)):
            os.write(queue, number.to_bytes(_NUMBER, "big"))
        os.lseek(queue, 0, os.SEEK_SET)
        self._workers: dict[Connection, multiprocessing.process.BaseProcess] = {}
        self._runs: dict[Connection, tuple[str, tuple[str, int | None, str]]] = {}  # what each is at
        self._started = 0
        self._joining: set[Connection] = set()  # those who work only while there is room
        usual, more = session.config.option.workers, session.config.option.more
        for number in range(min(usual + more, len(self._groups))):
            self._start(joins=number >= usual)

    def _start(self, *, joins: bool) -> None:
        near, far = multiprocessing.Pipe(duplex=False)
        given = (self._session, self._groups, self._queue, far, self._started, joins)
        worker = multiprocessing.get_context("fork").Process(target=_work, args=given)
        worker.start()
        leftovers.tell("process", str(worker.pid))
        far.close()
        self._workers[near] = worker
        if joins:
            self._joining.add(near)
        self._started += 1

    def follow(self) -> None:
        """Until all have ended. Raises what stops a run, as pytest's own loop does."""
        while self._workers:
            sentinels = {worker.sentinel: near for near, worker in self._workers.items()}
            ready = wait([*self._workers, *sentinels])
            for near in {one if isinstance(one, Connection) else sentinels[one] for one in ready}:  # type: ignore[index]
                try:
                    # One that has died may have said something before.
                    if near.poll() or self._workers[near].is_alive():
                        self._take(near, *near.recv())
                        continue
                except EOFError:
                    pass
                self._ended(near)
            if self._session.shouldfail or self._session.shouldstop:
                os.ftruncate(self._queue, 0)
        if self._session.shouldfail:
            raise self._session.Failed(self._session.shouldfail)
        if self._session.shouldstop:
            raise self._session.Interrupted(self._session.shouldstop)

    def _take(self, near: Connection, kind: str, *fields: Any) -> None:
        config = self._session.config
        if kind == "start":
            self._runs[near] = (fields[0], fields[1])
            config.hook.pytest_runtest_logstart(nodeid=fields[0], location=fields[1])
        elif kind == "report":
            report = config.hook.pytest_report_from_serializable(config=config, data=fields[0])
            config.hook.pytest_runtest_logreport(report=report)
        elif kind == "finish":
            self._runs.pop(near, None)
            config.hook.pytest_runtest_logfinish(nodeid=fields[0], location=fields[1])
        elif kind == "warning":
            text, when, nodeid, location = fields
            warning = warnings.WarningMessage(pytest.PytestWarning(text), pytest.PytestWarning, *location[:2])
            given = {"warning_message": warning, "when": when, "nodeid": nodeid, "location": location}
            config.hook.pytest_warning_recorded.call_historic(kwargs=given)

    def _ended(self, near: Connection) -> None:
        """A worker that died within a test has failed it; another takes its place."""
        worker = self._workers.pop(near)
        worker.join()
        near.close()
        at = self._runs.pop(near, None)
        if at is None and not worker.exitcode:
            return
        nodeid, location = at or ("tests", ("tests", None, "tests"))
        words = f"the process that ran it ended with {worker.exitcode}"
        self._session.config.hook.pytest_runtest_logreport(report=_failed(nodeid, location, "call", words))
        if at is not None and not self._session.shouldfail and not self._session.shouldstop:
            self._start(joins=near in self._joining)

    def end(self) -> None:
        """Whatever happens to this process, none stays."""
        for worker in self._workers.values():
            worker.terminate()
        for worker in self._workers.values():
            worker.join()


def grouped(items: list[pytest.Item]) -> list[list[pytest.Item]]:
    """Tests in their order, those together that one worker has to run; of each folder the largest groups first, so
    that at the end no worker is at many tests while the others have none.
    """
    groups: dict[str, list[pytest.Item]] = {}
    alone = not own_machine.can_be_taken()  # then those that share what the machine has once
    for item in items:
        module = item.getparent(pytest.Module)
        name = str(item.path) if _shares(item) else item.nodeid
        if alone and module is not None and {"accounts", "machine"} & set(vars(module.obj)):
            name = "the machine"
        groups.setdefault(name, []).append(item)
    folders = groupby(groups.values(), key=lambda group: group[0].path.parent)
    return [group for _, folder in folders for group in sorted(folder, key=len, reverse=True)]


def _shares(item: pytest.Item) -> bool:
    """Whether a test has what is made once for its file: a fixture, wherever that is written, or a browser."""
    known: dict[str, Any] = item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}
    scopes = {definitions[-1].scope for definitions in known.values() if definitions}
    return item.path.parent.name == "console" or not scopes <= {"function", "session"}


def _failed(
    nodeid: str, location: tuple[str, int | None, str], when: Literal["call", "teardown"], words: str
) -> pytest.TestReport:
    return pytest.TestReport(nodeid, location, {}, "failed", words, when)


def _work(
    session: pytest.Session, groups: list[list[pytest.Item]], queue: int, far: Connection, number: int, joins: bool
) -> None:
    """What a worker does, from its first line to the end of its process. joins: for each group, once there is room."""
    config, starter = session.config, os.getppid()
    os.environ[WORKER] = str(number)
    manager = config.pluginmanager
    # Files that catch what is printed are shared with whoever was forked.
    capture: Any = manager.getplugin("capturemanager")
    if capture is not None and capture.is_globally_capturing():
        capture.stop_global_capturing()
        capture.start_global_capturing()
    factory = config._tmp_path_factory  # type: ignore[attr-defined]
    turn = factory.getbasetemp() / "room"
    factory._basetemp = factory.getbasetemp() / f"worker-{number}"
    factory._basetemp.mkdir(mode=0o700)
    factory._next_number.clear()
    manager.unregister(name="terminalreporter")
    teller = _Teller(config, far)
    manager.register(teller)
    teller.told_all_from_before = True
    last, prepared = None, False

    def is_over() -> bool:
        """Whether there is no group left to take, or nobody to tell."""
        return os.lseek(queue, 0, os.SEEK_CUR) >= os.fstat(queue).st_size or os.getppid() != starter

    try:
        while not (session.shouldfail or session.shouldstop or (joins and not processors.wait_for_room(turn, is_over))):
            taken = os.read(queue, _NUMBER)
            if not taken:
                break
            if not prepared:
                _prepare()
                prepared = True
            group = groups[int.from_bytes(taken, "big")]
            # Which group is next is not known while one ends. What its folder has stays until one of another folder is.
            if last is not None and group[0].path.parent != last.path.parent:
                session._setupstate.teardown_exact(session)  # type: ignore[arg-type]
            folder = next(one.parent for one in group[-1].listchain() if isinstance(one, pytest.Module))
            for last, after in zip(group, [*group[1:], folder], strict=True):
                config.hook.pytest_runtest_protocol(item=last, nextitem=after)
                if os.getppid() != starter:
                    session.shouldstop = "nobody is there to tell"
                if session.shouldfail or session.shouldstop:
                    break
        session._setupstate.teardown_exact(None)
    except BaseException:
        if last is not None:
            words = traceback.format_exc()
            config.hook.pytest_runtest_logreport(report=_failed(last.nodeid, last.location, "teardown", words))
        else:
            traceback.print_exc()
            os._exit(1)
    finally:
        far.close()
    os._exit(0)


class _Teller:
    """In a worker: what pytest would show goes to the process that shows it."""

    def __init__(self, config: pytest.Config, far: Connection) -> None:
        self._config = config
        self._far = far
        self.told_all_from_before = False  # pytest tells a new plugin the warnings that there were

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._far.send(("start", nodeid, location))

    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._far.send(("finish", nodeid, location))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> Generator[None, None, None]:
        yield
        self._far.send(("report", self._config.hook.pytest_report_to_serializable(config=self._config, report=report)))

    def pytest_warning_recorded(
        self, warning_message: warnings.WarningMessage, when: str, nodeid: str, location: tuple[str, int, str] | None
    ) -> None:
        if not self.told_all_from_before:
            return
        place = location or (warning_message.filename, warning_message.lineno, "")
        self._far.send(
            ("warning", f"{warning_message.category.__name__}: {warning_message.message}", when, nodeid, place)
        )
