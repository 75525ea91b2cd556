"""Removes the agent from this host and restores every file it changed, to the byte; must not remove accounts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from typing import Callable, List

from keyrack.agent.keys.key_files import KeyFiles
from keyrack.agent.service.client import AddressProblem, NoAnswer, ServiceClient
from keyrack.agent.sshd.enforcement import Enforcement
from keyrack.agent.sshd.settings import Sshd, SshdProblem
from keyrack.agent.state import Enrolment, StateFolder, StateProblem
from keyrack.agent.system import accounts, alone, local, programs
from keyrack.protocol.report import UNINSTALLED, Report

UNIT = "/etc/systemd/system/keyrack-agent.service"
COMMAND = "/usr/local/bin/keyrack-agent"  # made by install.sh
STOP_SECONDS = 40.0
TELL_SECONDS = 10.0


def uninstall(state: StateFolder, enrolment: Enrolment, say: Callable[[str], None]) -> List[str]:
    """Stop the agent, restore sshd's own settings, and remove what enrolment made. Answers in words what went wrong.

    sshd comes first: key files must not be removed while it still reads them. May raise StateProblem, FolderProblem
    or OSError.
    """
    _stop_agent(state)
    state.lock()
    decided = local.read(state)
    alone.hold(state, enrolment, decided)
    if decided.drop_in is not None:
        problems = Enforcement(state, enrolment, decided.drop_in, say).off()
        if problems:
            return problems
    still_read = _still_read(enrolment)
    if still_read:
        return [still_read]
    made = accounts.noted(state)
    if made:
        say(f"accounts that were made for the service stay, with their homes: {', '.join(made)}")
    _remove_key_files(enrolment)
    _tell(enrolment, say)
    if os.path.exists(UNIT):
        os.unlink(UNIT)
        _systemctl("daemon-reload")
    shutil.rmtree(state.folder.path)
    alone.leave(os.getpid())
    _remove_program()
    return []


class _Telling(threading.Thread):
    """Reports the uninstallation once. `taken` may be read only when the thread has ended."""

    def __init__(self, enrolment: Enrolment) -> None:
        super().__init__(name="telling", daemon=True)
        self._enrolment = enrolment
        self.taken = False

    def run(self) -> None:
        """Send the report."""
        given = self._enrolment
        with contextlib.suppress(NoAnswer, AddressProblem, OSError):
            client = ServiceClient(given.url, given.secret, plain_http=True, ca_file=given.ca_file, proxy=given.proxy)
            with contextlib.closing(client):
                report = Report(facts={"enforcement": UNINSTALLED}, problems=[]).to_json()
                self.taken = client.post("/agent/v1/report", report).status == 200


def _tell(enrolment: Enrolment, say: Callable[[str], None]) -> None:
    """Tell the service that the agent was uninstalled; wait TELL_SECONDS at most, and only log a failure."""
    # On a thread: a name server or service that does not answer must not stop the uninstallation.
    telling = _Telling(enrolment)
    telling.start()
    telling.join(TELL_SECONDS)
    if telling.is_alive() or not telling.taken:
        say(f"{enrolment.url} could not be told; there this host only looks silent")


def _remove_program() -> None:
    """Remove the installed program, if this process runs from it; last, as no module can be loaded after that."""
    program = os.path.realpath(sys.argv[0])
    if os.path.basename(program) == "keyrack-agent.pyz":
        with contextlib.suppress(OSError), open(COMMAND, encoding="utf-8", errors="replace") as file:
            if f'"{program}"' in file.read(4096):
                os.unlink(COMMAND)
        os.unlink(program)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(program))


def _stop_agent(state: StateFolder) -> None:
    if os.path.exists(UNIT):
        _systemctl("disable", "--now", "keyrack-agent.service")
    pid = state.holder()
    if pid is not None and _is_agent(pid):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while state.in_use():
        if time.monotonic() > deadline:
            raise StateProblem("the agent is still at work; stop it, and try again")
        time.sleep(0.05)


def _is_agent(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"keyrack" in file.read()
    except OSError:
        return False


def _still_read(enrolment: Enrolment) -> str:
    """Why Keyrack's files must stay: the host's own settings may name them, and sshd lets nobody in if its RevokedKeys
    file is missing. Empty where they do not, or no sshd runs.
    """
    sshd = Sshd(enrolment.sshd_config)
    path = enrolment.revoked_keys
    try:
        named = sshd.effective().one("revokedkeys") == path
    except SshdProblem as problem:
        why = f"sshd does not say whether it reads {path}, without which nobody gets in: {problem}"
        return why if sshd.runs() else ""
    return f"sshd's own settings name {path}; take that out of them first, or nobody gets in" if named else ""


def _remove_key_files(enrolment: Enrolment) -> None:
    files = KeyFiles.open(enrolment.keys_folder, enrolment.revoked_keys)
    try:
        files.clear()
    finally:
        files.close()
    parent = os.path.dirname(enrolment.revoked_keys)
    for folder in (enrolment.keys_folder, parent):
        try:
            os.rmdir(folder)
        except OSError:
            pass  # it holds other files, which are not Keyrack's


def _systemctl(*arguments: str) -> None:
    systemctl = programs.find("systemctl")
    if systemctl is not None and os.path.isdir("/run/systemd/system"):
        programs.run([systemctl, *arguments], seconds=STOP_SECONDS)
