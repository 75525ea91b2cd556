"""Runs tasks on files in one child process, each with the rights of its account, as sshd does; it changes nothing.

sshd reads a key file with the effective user id of the account that logs in, and its real user id stays root's. So the
account can neither stop nor trace the process (kill(2), ptrace(2)), and the process sees what the account sees, also on
a file system that does not trust root. A task that does not answer is given up: the child is killed, and another child
goes on with the next account.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from keyrack.agent.system import as_account

ONE_SECONDS = 3.0  # after which a task that has not answered is given up
ALL_SECONDS = 60.0
_LARGEST_FRAME = 8 * 1024 * 1024
NO_TIME = "there was no time left to look"


class Task(NamedTuple):
    """One task. work: runs with the account's rights and answers what JSON can hold.

    may_hang: the file lies on a file system that may not answer (mounts.py); lane: a number below 0 to use in place of
    the account's id, so that a task that hangs does not keep the account's other tasks waiting.
    """

    uid: int
    gid: int
    name: str
    work: Callable[[], Any]
    may_hang: bool = False
    lane: Optional[int] = None

    @property
    def waits_for(self) -> int:
        """The queue it belongs to: its lane, or its account's id. While a task hangs, others of its queue wait."""
        return self.uid if self.lane is None else self.lane


class TaskResult(NamedTuple):
    """A task's result. problem: why there is no value, in words; ended: False where the task was cut off, True where it
    said so itself.
    """

    value: Any = None
    problem: str = ""
    ended: bool = True


def run(tasks: Sequence[Task], *, one: float = ONE_SECONDS, everything: float = ALL_SECONDS) -> List[TaskResult]:
    """Run the tasks one after another. Answers a result for each, in their order.

    one: seconds that a single task may take; everything: seconds that all of them may take together.
    """
    answers: List[Optional[TaskResult]] = [None] * len(tasks)
    deadline = time.monotonic() + everything
    as_account.reap()
    for number, task in enumerate(tasks):
        if task.waits_for in as_account.left():
            answers[number] = TaskResult(None, as_account.NOT_ENDED, False)
    while True:
        if len(as_account.left()) >= as_account.MAX_LEFT:
            # Tasks on this machine's own disks still run.
            for number, task in enumerate(tasks):
                if task.may_hang and answers[number] is None:
                    answers[number] = TaskResult(None, as_account.TOO_MUCH, False)
        waiting = [number for number, answer in enumerate(answers) if answer is None]
        if not waiting:
            break
        if time.monotonic() >= deadline:
            for number in waiting:
                answers[number] = TaskResult(None, NO_TIME, False)
            break
        done, problem = _run_until_stuck(tasks, waiting, one, deadline)
        for number, answer in done.items():
            answers[number] = answer
        stuck = next((number for number in waiting if answers[number] is None), None)
        if stuck is not None:
            # It would hang again: the other tasks of its queue are given up in this run.
            for number in waiting:
                if answers[number] is None and tasks[number].waits_for == tasks[stuck].waits_for:
                    answers[number] = TaskResult(None, problem, False)
    return [answer if answer is not None else TaskResult(None, NO_TIME, False) for answer in answers]


def _run_until_stuck(
    tasks: Sequence[Task], waiting: List[int], one: float, deadline: float
) -> Tuple[Dict[int, TaskResult], str]:
    """Run these waiting tasks until one does not answer. Answers results by the task's number, and why the run ended
    before the last task (empty if it did not).
    """
    done: Dict[int, TaskResult] = {}
    try:
        child = as_account.Child(tasks[waiting[0]].waits_for, lambda writing: _work(tasks, waiting, writing))
    except as_account.AccountProblem as problem:
        return done, str(problem)
    buffer = bytearray()
    try:
        for number in waiting:
            child.account = tasks[number].waits_for
            until = min(deadline, time.monotonic() + one)
            while b"\n" not in buffer:
                piece = child.read(until)
                if piece is None:
                    return done, NO_TIME if time.monotonic() >= deadline else f"no answer within {one:g} seconds"
                if not piece or len(buffer) > _LARGEST_FRAME:
                    return done, "the look ended early"
                buffer += piece
            line, _, rest = bytes(buffer).partition(b"\n")
            buffer = bytearray(rest)
            answer = json.loads(line)
            done[number] = TaskResult(answer.get("value"), answer.get("problem", ""))
    finally:
        child.end()
    return done, ""


def _work(tasks: Sequence[Task], waiting: List[int], writing: int) -> None:
    """In the child."""
    os.chdir("/")
    for number in waiting:
        result = _do(tasks[number])
        as_account.write_all(writing, json.dumps(result).encode("ascii") + b"\n")


def _do(task: Task) -> Any:
    root = os.geteuid() == 0
    if not root and task.uid != os.geteuid():
        return {"problem": f"only root can do this as {task.name}"}
    try:
        try:
            return {"value": _with_rights(task, [task.gid], root)}
        except PermissionError:
            if not root or task.uid == 0:
                raise
            # Groups are looked up only now: a directory service may be slow to answer.
            return {"value": _with_rights(task, os.getgrouplist(task.name, task.gid), root)}
    except OSError as error:
        return {"problem": str(error.strerror or error)}
    except as_account.AccountProblem as problem:
        return {"problem": str(problem)[:300]}
    except Exception as problem:  # whatever a file made go wrong, the next task must run
        return {"problem": f"it could not be looked at ({type(problem).__name__})"}


def _with_rights(task: Task, groups: List[int], root: bool) -> Any:
    if not root or task.uid == 0:
        return task.work()
    os.setgroups(groups)
    os.setegid(task.gid)
    os.seteuid(task.uid)
    try:
        return task.work()
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([0])
