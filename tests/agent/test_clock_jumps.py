"""A host's clock that is wrong, or is set while keys are open: none of them opens longer than was promised."""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest

from keyrack.agent.service.service_clock import ServiceClock
from keyrack.protocol.document_words import DROP_TEMPORARY
from keyrack.protocol.host_document import AuthorizedKey, OfflinePolicy
from tests.agent.small_service import SmallService, small_service
from tests.agent.watched_host import Watched, enrolled
from tests.login.private_sshd import USERNAME, Key
from tests.waiting import wait_until

DAY = 86400
ASKS = """import sys
from keyrack.agent.service.http1 import Connection
connection = Connection("127.0.0.1", int(sys.argv[1]), tls=False, connect_seconds=5)
connection.exchange("GET", "/", {}, b"", seconds=1800, largest=100)
"""
SHORT = 15  # seconds that a key is open for


@pytest.fixture
def running() -> Iterator[ExitStack]:
    """What a service runs in that may end before the test does."""
    with ExitStack() as stack:
        yield stack


class Clock:
    """The time of day as the programs see it that are started from now on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("setting a program's clock takes a C compiler (gcc)")
        library, source = folder / "set_clock.so", Path(__file__).parent / "set_clock.c"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True, timeout=120)
        self._file = folder / "clock"
        self._file.write_bytes(bytes(16))
        monkeypatch.setenv("LD_PRELOAD", str(library))
        monkeypatch.setenv("LD_SET_CLOCK", str(self._file))

    def is_ahead(self, seconds: int) -> None:
        """Set it, against the real one."""
        self._write(seconds, at=0)

    def slept(self, seconds: int) -> None:
        """Have the host have slept for so long."""
        self._write(seconds, at=8)

    def _write(self, seconds: int, *, at: int) -> None:
        with self._file.open("r+b") as file:
            file.seek(at)
            file.write(struct.pack("=q", seconds))


def ending(key: Key, seconds: float) -> AuthorizedKey:
    """A key that ends in so many seconds, by the service's clock."""
    return AuthorizedKey(key.public, expires_at=datetime.now(UTC) + timedelta(seconds=seconds))


class Silenced(NamedTuple):
    """A host of one key, whose service says nothing any more: after three hours the key is dropped."""

    watched: Watched
    key: Key
    clock: Clock


@pytest.fixture
def silenced(
    tmp_path: Path, folder: Path, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Silenced]:
    """Such a host, from now on."""
    clock = Clock(tmp_path, monkeypatch)
    key = Key.make(tmp_path / "key")
    with enrolled(folder, service) as watched:
        watched.publish({USERNAME: [ending(key, 9 * DAY)]}, offline_policy=OfflinePolicy(3 * 3600, DROP_TEMPORARY))
        assert watched.client.lets_in(key, USERNAME)
        service.refusal = 503
        yield Silenced(watched, key, clock)


def keys_of(watched: Watched) -> bytes:
    return (watched.host.keys / USERNAME).read_bytes()


def test_a_key_ends_by_the_services_clock_on_a_host_whose_clock_is_behind(
    tmp_path: Path, folder: Path, service: SmallService
) -> None:
    """Also once the agent is dead: the end stands in the line by this host's clock."""
    service.clock_ahead = 7200.0
    short, long = Key.make(tmp_path / "short"), Key.make(tmp_path / "long")
    with enrolled(folder, service) as watched:
        watched.publish({USERNAME: [ending(short, 7200 + SHORT), ending(long, 7200 + DAY)]})
        assert watched.client.lets_in(short, USERNAME)
        assert "are as the document says" in watched.host.agent("doctor").stdout
        watched.kill_agent()
        wait_until(lambda: not watched.client.lets_in(short, USERNAME), "an end by the service's clock")
        assert watched.client.lets_in(long, USERNAME)


def test_a_clock_that_is_set_while_nobody_answers(
    tmp_path: Path, folder: Path, running: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path, monkeypatch)
    short, long = Key.make(tmp_path / "short"), Key.make(tmp_path / "long")
    with ExitStack() as stack:
        service = running.enter_context(small_service())
        watched = stack.enter_context(enrolled(folder, service))
        watched.publish({USERNAME: [ending(short, SHORT), ending(long, DAY / 2)]})
        before = keys_of(watched)
        running.close()
        clock.is_ahead(-DAY)
        wait_until(lambda: keys_of(watched) != before, "ends by a clock that was set back")
        assert watched.client.lets_in(long, USERNAME)
        watched.kill_agent()
        wait_until(lambda: not watched.client.lets_in(short, USERNAME), "the end that was promised")
        # An agent that begins with the wrong clock knows how late it was.
        watched.start_agent()
        wait_until(lambda: "is in force" in (watched.host.folder / "agent.log").read_text("utf-8"), "a first check")
        assert not watched.client.lets_in(short, USERNAME)
        assert watched.client.lets_in(long, USERNAME)
        clock.is_ahead(0)
        wait_until(lambda: keys_of(watched) == before, "the ends as they were")
        clock.is_ahead(DAY)
        assert not watched.client.lets_in(long, USERNAME)


def test_the_time_that_a_host_slept_counts_as_the_services_silence(
    tmp_path: Path, folder: Path, service: SmallService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service's silence counts, and what ended meanwhile has ended."""
    clock = Clock(tmp_path, monkeypatch)
    short, long = Key.make(tmp_path / "short"), Key.make(tmp_path / "long")
    with enrolled(folder, service) as watched:
        users = {USERNAME: [ending(short, 3600), ending(long, DAY)]}
        watched.publish(users, offline_policy=OfflinePolicy(3 * 3600, DROP_TEMPORARY))
        inside = watched.ssh(short, "-N")
        watched.wait_for_sessions(1)
        assert watched.client.lets_in(long, USERNAME)
        service.refusal = 503
        clock.slept(2 * 3600)
        inside.wait(30)
        assert not watched.client.lets_in(short, USERNAME)
        assert watched.client.lets_in(long, USERNAME)
        clock.slept(4 * 3600)
        wait_until(lambda: not watched.client.lets_in(long, USERNAME), "keys dropped, as nobody confirmed them")


def test_a_clock_that_is_set_back_shortens_no_silence(silenced: Silenced, service: SmallService) -> None:
    """Neither where the agent is started anew by it."""
    watched, key, clock = silenced
    clock.slept(4 * 3600)
    wait_until(lambda: not watched.client.lets_in(key, USERNAME), "keys dropped, as nobody confirmed them")
    dropped = keys_of(watched)
    watched.kill_agent()
    clock.is_ahead(-DAY)
    said = (watched.host.folder / "agent.log").stat().st_size
    watched.start_agent()
    wait_until(lambda: b"is in force" in (watched.host.folder / "agent.log").read_bytes()[said:], "a first check")
    assert keys_of(watched) == dropped
    clock.is_ahead(0)
    service.refusal = None
    wait_until(lambda: watched.client.lets_in(key, USERNAME), "the key, as the service answers")


def test_keys_dropped_by_a_wrong_clock_at_a_start_without_the_service_are_reported(
    silenced: Silenced, service: SmallService
) -> None:
    """Keys that were dropped by it stay away until the service answers, and the reason is reported."""
    watched, key, clock = silenced
    watched.kill_agent()
    clock.is_ahead(DAY)
    watched.start_agent()
    wait_until(lambda: not watched.client.lets_in(key, USERNAME), "keys dropped by the clock that is ahead")
    dropped = keys_of(watched)
    clock.is_ahead(0)
    log = watched.host.folder / "agent.log"
    words = "clock was set back by about 24 hours since the agent began"
    wait_until(lambda: words in log.read_text("utf-8"), "words about the clock", seconds=60)
    assert words in watched.host.agent("status").stdout
    assert words in watched.host.agent("doctor").stdout
    assert keys_of(watched) == dropped
    service.refusal = None
    wait_until(lambda: watched.client.lets_in(key, USERNAME), "the key, as the service answers")
    wait_until(lambda: words not in watched.host.agent("status").stdout, "no such words any more", seconds=60)


def test_a_question_interrupted_by_a_sleep_of_the_machine_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(tmp_path, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asking = subprocess.Popen([sys.executable, "-c", ASKS, str(silent.getsockname()[1])], stderr=subprocess.PIPE)
        try:
            connection, _ = silent.accept()
            with connection:
                assert connection.recv(3) == b"GET"
                clock.slept(3600)
                _, said = asking.communicate(timeout=60)
        finally:
            asking.kill()
            asking.wait()
    assert b"timed out" in said


def test_a_difference_of_a_moment_has_nothing_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer tells whole seconds and takes its time to come."""
    clock = ServiceClock()
    now = datetime.now(UTC).timestamp()
    assert clock.behind() == 0
    clock.note(now + 1)
    assert clock.behind() == 0
    clock.note(now + 100)
    assert 99 <= clock.behind() <= 101
    clock.note(now + 95)  # one that was long on its way
    assert 99 <= clock.behind() <= 101
    clock.note(now)  # the service's clock was set right
    assert clock.behind() == 0
    clock.is_past(now - 5000)
    assert clock.behind() == 0
