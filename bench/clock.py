"""What people notice while a clock, the service's or a host's, is an hour or a day off, and when it is right again.

    .venv/bin/python bench/clock.py [SECONDS]

A real service, a real agent and a real sshd on loopback. The clock of the host's programs, which live through each
jump, is that of clock.c; the service's is what it asks for the time. In each case, for SECONDS (6 unless said),
somebody logs in again and again; a key that was given an end reaches it, one is added, one is revoked. Then the clock
is right again, and the same is tried once more, and the audit log is looked through. Prints a table as docs/figures.md
has it; a login that fails, a key that opens five seconds after its end, or a log that does not verify ends this with an
error. Needs sshd and a C compiler.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import structlog
from usage import help_asked

sys.path.insert(0, str(Path(__file__).parent.parent))

from keyrack.cli.machine.demo_host import DemoHost
from keyrack.core.audit import chain, verify_log
from keyrack.core.hosts import servers, system_users
from keyrack.core.instance import utc_now
from keyrack.core.keys import credentials, revocation
from keyrack.core.people import actors
from keyrack.errors import Refusal
from keyrack.ssh.public_key import fingerprint_of
from tests.login.private_sshd import USERNAME, Key, SshClient, sshd_path, strict_folder
from tests.ports import free_port
from tests.services import TEAM, Service, running, settings_for

HOURS = (1, -1, 24, -24)
LATE_SECONDS = 5.0


class HostWithClock(DemoHost):
    """A demo host whose clock can be set."""

    def set_clock(self, hours: int) -> None:
        """From now on it is so many hours later there."""
        with open(self._file("offset"), "r+b") as file:
            file.write(struct.pack("=q", hours * 3600))

    def prepare(self) -> None:
        """As any host, with a clock that is right."""
        super().prepare()
        self._file("offset").write_bytes(bytes(8))
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(self._file("so")), str(Path(__file__).with_suffix(".c"))]
        subprocess.run(command, check=True)

    def start(self) -> None:
        """As any host; sshd has its clock from the environment that it is started with."""
        os.environ.update(self._environment)
        try:
            super().start()
        finally:
            for name in self._environment:
                del os.environ[name]

    def _file(self, kind: str) -> Path:
        return self.directory / f"clock.{kind}"

    @property
    def _environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._file("so")), "BENCH_CLOCK": str(self._file("offset"))}

    def _command(self, *arguments: str) -> list[str]:
        return [
            "/usr/bin/env",
            *(f"{name}={value}" for name, value in self._environment.items()),
            *super()._command(*arguments),
        ]


class Place:
    """A service and a host of it."""

    def __init__(self, service: Service, host: HostWithClock, server_id: int, scratch: Path) -> None:
        self.service, self.host, self.server_id, self.scratch = service, host, server_id, scratch
        self.client = SshClient(host.port, host.known_hosts)
        self._count = 0

    def add(self, ends: datetime | None = None) -> Key:
        """A key that may log in."""
        self._count += 1
        key = Key.make(self.scratch / f"key-{self._count}")
        given: dict[str, Any] = {"label": f"key {self._count}", "username": USERNAME, "public_key": key.public}
        credentials.add(self.service.instance, actors.system_actor(1), self.server_id, **given, expires_at=ends)
        return key

    def logins(self, key: Key, seconds: float) -> tuple[int, int]:
        """Log in again and again; how often, and how often in vain."""
        count, failed, until = 0, 0, time.monotonic() + seconds
        while time.monotonic() < until:
            count += 1
            failed += self.client.login(key).returncode != 0
        return count, failed

    def opens(self) -> tuple[Key, float]:
        """A new key, and how soon it opens."""
        began = time.monotonic()
        key = self.add()
        self.client.wait_until_open(key)
        return key, time.monotonic() - began

    def refuses(self, key: Key) -> float:
        """How soon a key is refused once it is revoked."""
        began = time.monotonic()
        revocation.revoke_everywhere(self.service.instance, actors.system_actor(1), fingerprint_of(key.public))
        self.client.wait_until_closed(key)
        return time.monotonic() - began

    def set_clock(self, whose: str, hours: int) -> None:
        """Have one clock be wrong by so many hours."""
        if whose == "host":
            self.host.set_clock(hours)
        else:
            object.__setattr__(self.service.instance, "now", lambda: utc_now() + timedelta(hours=hours))


def one_case(place: Place, whose: str, hours: int, seconds: float) -> list[str]:
    """A row, and what was wrong."""
    stays = place.add()
    ends = datetime.now(UTC) + timedelta(seconds=20)
    ending = place.add(ends)
    place.client.wait_until_open(stays)
    place.set_clock(whose, hours)
    count, failed = place.logins(stays, seconds)
    added, opened = place.opens()
    refused = place.refuses(added)
    early = datetime.now(UTC) < ends and not place.client.lets_in(ending)
    time.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds() + LATE_SECONDS))
    late = place.client.lets_in(ending)
    place.set_clock(whose, 0)
    again, opened_again = place.opens()
    refused_again = place.refuses(again)
    more, failed_more = place.logins(stays, 2)
    instance = place.service.instance
    while chain.extend(instance):
        pass
    problem = verify_log.verify(instance, actors.system_actor(1)).problem
    ended = "**opened after it**" if late else "refused before it" if early else "refused after it"
    times = f"{opened:.1f} s | {refused:.1f} s | {opened_again:.1f} s | {refused_again:.1f} s"
    log = problem or "whole"
    print(f"| {whose} {hours:+d} h | {count + more} | {failed + failed_more} | {times} | {ended} | {log} |", flush=True)
    wrong = [f"{failed + failed_more} logins failed"] if failed + failed_more else []
    return [*wrong, *(["a key opened after its end"] if late else []), *([problem] if problem else [])]


def main() -> int:
    """Set up, and try each."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))  # the table alone
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 6.0
    wrong: list[str] = []
    print(
        "| clock | logins | failed | added, opens | revoked, refused | right again: opens | refused | its end | log |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with ExitStack() as stack:
        folder, strict = stack.enter_context(tempfile.TemporaryDirectory()), stack.enter_context(strict_folder())
        service = stack.enter_context(running(settings_for(Path(folder) / "data", f"sqlite:///{folder}/keyrack.db")))
        service.apply(TEAM)
        actor = actors.system_actor(1)
        server = servers.create(service.instance, actor, name="off", address="127.0.0.1")
        with suppress(Refusal):  # root is there from the start
            system_users.create(service.instance, actor, server.id, username=USERNAME)
        host = HostWithClock(strict / "host", free_port(), sshd_path())
        host.prepare()
        host.enrol(service.url, servers.invite(service.instance, actor, server.id))
        stack.callback(host.stop)
        host.start()
        place = Place(service, host, server.id, Path(folder))
        for whose in ("host", "service"):
            for hours in HOURS:
                wrong += [f"{whose} {hours:+d} h: {one}" for one in one_case(place, whose, hours, seconds)]
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    help_asked(__doc__)
    sys.exit(main())
