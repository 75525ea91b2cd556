"""The agent is killed right before each change that it makes as a key's end passes, where sshd reads none in UTC: each
file is old or new, and the next start leaves nothing open or half done.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from keyrack.agent.keys.ends import EARLY_SECONDS
from keyrack.agent.state import Enrolment, StateFolder
from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.signed_documents import HOST, Signer, document
from tests.agent.test_failing_system import compiled
from tests.login.private_sshd import USERNAME, Key
from tests.login.test_ends_in_local_time import host, soon

# What the agent does at a start before the end and at the end; killed from then on.
PROGRAM = """
import os, sys, time
from keyrack.agent.reconcile import Reconciler
from keyrack.agent.state import StateFolder

state = StateFolder.open(sys.argv[1])
reconciler = Reconciler(state, state.enrolment())
reconciler.recall(0)
assert reconciler.put().problems == ()
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
os.environ.update(FAIL_CALL=sys.argv[3])
words = reconciler.end_keys()
print(words)
"""
SECONDS = 4.0  # until the end, which starting the agent takes less than


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("version", "without"), [("7.6", ("expiry-time",)), ("8.9", ())], ids=["no-ends", "local"])
def test_a_killed_agent_leaves_no_file_half_done(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, version: str, without: tuple[str, ...]
) -> None:
    shim, count = compiled(tmp_path_factory), tmp_path / "count"
    ended, lasting = Key.make(tmp_path / "ended"), Key.make(tmp_path / "lasting")
    signer = Signer()
    with host(version, "UTC0", without) as old:
        state = StateFolder.open(str(old.server.directory / "agent"), create=True)
        keys, revoked = str(old.server.keys), str(old.server.revoked_keys)
        state.enrol(
            Enrolment("http://127.0.0.1:9", HOST, "s", signer.public, "web-1", keys, revoked, str(old.server.config))
        )
        file = old.server.keys / USERNAME

        def do(end: float, killed_at: int = 0) -> bool:
            """Have the agent see the end pass; answers whether it lived to tell."""
            count.unlink(missing_ok=True)
            environment = {**os.environ, "LD_PRELOAD": str(shim), "FAIL_ERRNO": "0", "FAIL_COUNT": str(count)}
            environment |= {"FAIL_AT": str(killed_at), "FAIL_BELOW": str(old.server.directory)}
            given = [sys.executable, "-c", PROGRAM, state.folder.path, str(end), "change" if killed_at else "none"]
            run = subprocess.run(given, env=environment, capture_output=True, text=True, check=False, timeout=120)
            assert run.returncode in ((0, -9) if killed_at else (0,)), run.stderr
            assert run.returncode or run.stdout == "[]\n"
            return run.returncode == 0

        number = 0
        while True:
            number += 1
            end = soon(SECONDS)
            users = {USERNAME: [AuthorizedKey(ended.public, end), AuthorizedKey(lasting.public)]}
            state.accept(signer.signed(document(number, users)))
            passes = (end - timedelta(seconds=EARLY_SECONDS if without else 0)).timestamp()
            lived = do(passes, number)
            found = file.read_bytes()
            assert lasting.public.encode() in found, f"killed before change {number}"
            assert old.client.lets_in(lasting), f"killed before change {number}"
            time.sleep(max(0.0, end.timestamp() - time.time()))
            assert do(0.0)  # the next start
            assert ended.public.encode() not in file.read_bytes(), f"killed before change {number}"
            assert not old.client.lets_in(ended), f"killed before change {number}"
            assert old.client.lets_in(lasting)
            assert sorted(os.listdir(keys)) == [USERNAME], f"killed before change {number}"
            if lived:
                break
            assert found.count(b"\n") in (2, 3)
        assert number > 3
        state.folder.close()
