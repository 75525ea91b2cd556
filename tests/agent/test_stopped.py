"""An agent that is stopped in the middle of its work, as a debugger or a full cgroup freezer does: logins go on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.small_service import small_service
from tests.agent.watched_host import Watched, enrolled
from tests.login.private_sshd import USERNAME, Key, strict_folder
from tests.waiting import wait_until

SHORT_SECONDS = 6


@contextmanager
def stopped(host: Watched) -> Iterator[None]:
    """The agent stands still meanwhile."""
    os.kill(host.agent_pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(host.agent_pid, signal.SIGCONT)


def test_logins_and_their_ends_go_on_and_so_does_the_agent(tmp_path: Path) -> None:
    lasting, short, revoked, later = (Key.make(tmp_path / name) for name in ("lasting", "short", "revoked", "later"))
    with strict_folder() as folder, small_service() as service, enrolled(folder, service) as host:
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=SHORT_SECONDS)
        given = [AuthorizedKey(key.public) for key in (lasting, revoked)]
        host.publish({USERNAME: [*given, AuthorizedKey(short.public, expires_at=end)]})
        assert host.client.lets_in(short)
        with stopped(host):
            host.publish_alone({USERNAME: [given[0], AuthorizedKey(later.public)]})
            assert host.client.lets_in(lasting)
            time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()))
            assert not host.client.lets_in(short), "the end stands in what sshd itself reads"
            assert host.client.lets_in(revoked), "nobody is there to take it"
        service.wait_for_report("applied", host.revision)
        wait_until(lambda: host.client.lets_in(later), "the key that came meanwhile")
        assert host.client.lets_in(lasting)
        assert not host.client.lets_in(revoked)
