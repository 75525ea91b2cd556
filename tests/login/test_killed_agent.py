"""The agent is killed right before each change that it makes, enforcing and undoing it: nobody is locked out, and the
next start leaves nothing half done.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agent.test_failing_system import compiled
from tests.login.test_proven_enforcing import Scene
from tests.login.test_proven_enforcing import scene as scene

# The long form takes minutes: KEYRACK_LONG=1.
STEP = 1 if os.environ.get("KEYRACK_LONG") else 9

# What the agent does, without the service and without the time that a trial takes.
PROGRAM = """
import sys
from keyrack.agent.reconcile import Reconciler
from keyrack.agent.sshd.enforcement import Enforcement
from keyrack.agent.state import StateFolder
from keyrack.agent.system import local
from keyrack.protocol import host_document

state = StateFolder.open(sys.argv[1])
enrolment = state.enrolment()
document = host_document.decode(state.accepted().document)
files = Reconciler(state, enrolment)
files.recall(0)
files.put()
held = Enforcement(state, enrolment, local.read(state).drop_in, print, 0.0)
held.begin()
for wish in sys.argv[2:]:
    held.put(document._replace(mode=wish))
    held.note_contact(True)
    held.put(document._replace(mode=wish))
print(held.state)
"""


class Killed:
    """A host whose agent is killed. originals: its files as they were."""

    def __init__(self, scene: Scene, shim: Path, count: Path) -> None:
        self._scene = scene
        self._shim = shim
        self._count = count
        self.originals = self.files()

    def files(self) -> dict[str, tuple[object, ...]]:
        """The host's files; of Keyrack's own, which a question to sshd changes for a moment, not when they changed."""
        ours = str(self._scene.host.etc / "keyrack")
        found = self._scene.host.snapshot()
        return {path: lines[:-1] if path.startswith(ours) else lines for path, lines in found.items()}

    def do(self, *wishes: str, killed_at: int = 0) -> str:
        """Have the agent do this; answers in which state it is then, empty where it was killed."""
        environment = dict(os.environ)
        if killed_at:
            self._count.unlink(missing_ok=True)
            environment |= {"LD_PRELOAD": str(self._shim), "FAIL_CALL": "change", "FAIL_ERRNO": "0"}
            environment |= {"FAIL_AT": str(killed_at), "FAIL_BELOW": str(self._scene.host.folder)}
            environment |= {"FAIL_COUNT": str(self._count)}
        given = [sys.executable, "-c", PROGRAM, str(self._scene.host.state), *wishes]
        ended = subprocess.run(given, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert ended.returncode in ((0, -9) if killed_at else (0,)), ended.stderr
        return ended.stdout.split("\n")[-2] if ended.returncode == 0 else ""

    def somebody_gets_in(self) -> bool:
        """By a key of the host's own or by Keyrack's."""
        return self._scene.hand_key_works() or self._scene.host.client.lets_in(self._scene.key, "krone")


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("before", ["", "enforce"], ids=["enforcing", "undoing"])
def test_a_killed_agent_locks_nobody_out(
    scene: Scene, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, before: str
) -> None:
    scene.start()
    scene.host.stop_agent()
    killed = Killed(scene, compiled(tmp_path_factory), tmp_path / "count")
    number = 1
    while True:
        if before:
            assert killed.do("observe", before) == "on"
        state = killed.do("observe" if before else "enforce", killed_at=number)
        scene.host.tell_sshd()  # as a start of the machine
        assert killed.somebody_gets_in(), f"killed before change {number}"
        if state:
            assert state == ("off" if before else "on")
            break
        # The next start; what was begun to be undone goes on once the agent reads what it was to do.
        state = killed.do()
        assert state in ("off", "on", "undone"), f"killed before change {number}: {state}"
        assert killed.somebody_gets_in(), f"killed before change {number}: {state}"
        if not before:
            assert scene.hand_key_works() == (state != "on"), f"killed before change {number}: {state}"
            assert scene.host.client.lets_in(scene.key, "krone") == (state == "on")
        assert killed.do("observe") == "off"
        assert scene.hand_key_works(), f"killed before change {number}"
        assert killed.files() == killed.originals, f"killed before change {number}"
        number += STEP
    assert number > STEP
