"""While enforcing is on trial a slow sshd breaks nothing, and one that is gone does: real sshd."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from keyrack.agent.sshd.enforcement import Enforcement
from keyrack.agent.sshd.enforcement_record import TRYING, UNDONE
from keyrack.agent.state import Enrolment, StateFolder
from keyrack.private_sshd import PrivateSshd
from keyrack.protocol.host_document import HostDocument
from tests.login.private_sshd import private_sshd, strict_folder

DOCUMENT = HostDocument(host="h", revision=1, issued_at=datetime.now(UTC), users={})


@pytest.fixture
def on_trial() -> Iterator[tuple[PrivateSshd, Enforcement]]:
    """An sshd, and an enforcing on trial there that began just now."""
    with ExitStack() as stack:
        folder = stack.enter_context(strict_folder())
        sshd, _ = stack.enter_context(private_sshd(folder / "one"))
        memory = StateFolder.open(str(folder / "agent"), create=True)
        stack.callback(memory.folder.close)
        words = dict.fromkeys(("url", "host", "secret", "signing_key", "server_name"), "h")
        places = {"keys_folder": str(sshd.keys), "revoked_keys": str(folder / "no"), "sshd_config": str(sshd.config)}
        held = Enforcement(memory, Enrolment(**words, **places), str(folder / "drop-in.conf"), print, trial=600)
        held._record = held._record._replace(state=TRYING, step=())
        held._tried_at = time.monotonic()
        yield sshd, held


def test_an_sshd_that_is_slow_for_some_seconds_does_not_undo_enforcing(
    on_trial: tuple[PrivateSshd, Enforcement],
) -> None:
    sshd, held = on_trial
    os.kill(sshd.pid, signal.SIGSTOP)
    later = threading.Timer(5, os.kill, (sshd.pid, signal.SIGCONT))
    later.start()
    try:
        held._watch(DOCUMENT)
    finally:
        later.join()
    assert (held.state, held.why) == (TRYING, "")


def test_an_sshd_that_is_gone_undoes_enforcing(on_trial: tuple[PrivateSshd, Enforcement]) -> None:
    sshd, held = on_trial
    sshd.stop()
    held._watch(DOCUMENT)
    assert (held.state, held.why) == (UNDONE, "sshd greets nobody any more")
