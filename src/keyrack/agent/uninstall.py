"""Takes the agent off this host and makes every file it changed what it was, to the byte; accounts stay."""

from __future__ import annotations

import os
import shutil
import signal
import time
from typing import Callable, List, Optional

from keyrack.agent import accounts, local, programs
from keyrack.agent.enforcement import Enforcement
from keyrack.agent.key_files import KeyFiles
from keyrack.agent.memory import Enrolment, Memory, MemoryProblem

UNIT = "/etc/systemd/system/keyrack-agent.service"
STOP_SECONDS = 40.0


def uninstall(memory: Memory, enrolment: Enrolment, say: Callable[[str], None]) -> List[str]:
    """Stop the agent, give sshd its own settings back, and remove what enrolment made; answers what went wrong.

    sshd comes first: while it would still look for key files, they must not go. May raise MemoryProblem,
    FolderProblem or OSError.
    """
    _stop_agent(memory)
    memory.lock()
    decided = local.read(memory)
    if decided.drop_in is not None:
        problems = Enforcement(memory, enrolment, decided.drop_in, say).off()
        if problems:
            return problems
    elif _still_read(enrolment):
        return [f"sshd still reads {enrolment.keys_folder}; take that out of its settings first"]
    made = accounts.noted(memory)
    if made:
        say(f"accounts that were made for the service stay, with their homes: {', '.join(made)}")
    _remove_key_files(enrolment)
    if os.path.exists(UNIT):
        os.unlink(UNIT)
        _systemctl("daemon-reload")
    shutil.rmtree(memory.folder.path)
    return []


def _stop_agent(memory: Memory) -> None:
    if os.path.exists(UNIT):
        _systemctl("disable", "--now", "keyrack-agent.service")
    pid = memory.holder()
    if pid is not None and _is_agent(pid):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while memory.in_use():
        if time.monotonic() > deadline:
            raise MemoryProblem("the agent is still at work; stop it, and try again")
        time.sleep(0.05)


def _is_agent(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"keyrack" in file.read()
    except OSError:
        return False


def _still_read(enrolment: Enrolment) -> bool:
    """Whether settings that are not ours name our files, so that removing them would shut everybody out."""
    from_outside: Optional[str] = enrolment.sshd_config
    if from_outside is None or not os.path.exists(from_outside):
        return False
    with open(from_outside, encoding="utf-8", errors="replace") as file:
        return enrolment.revoked_keys in file.read()


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
            pass  # something else lies there, which is not ours


def _systemctl(*arguments: str) -> None:
    systemctl = programs.find("systemctl")
    if systemctl is not None and os.path.isdir("/run/systemd/system"):
        programs.run([systemctl, *arguments], seconds=STOP_SECONDS)
