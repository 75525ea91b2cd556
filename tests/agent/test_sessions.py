"""Who is in and with which key, and how logins end: real sshd, real ssh, the real agent, and everything killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from keyrack.agent.sessions.watch import break_glass_keys
from keyrack.protocol.document_words import DROP_ALL, DROP_TEMPORARY
from keyrack.protocol.host_document import AuthorizedKey, HostDocument, OfflinePolicy
from keyrack.ssh.public_key import fingerprint_of
from tests.agent.signed_documents import ISSUED, public_key
from tests.agent.small_service import SmallService
from tests.agent.watched_host import SshdOneByOne, Watched, enrolled
from tests.login.observed_host import accounts
from tests.login.private_sshd import USERNAME, Key
from tests.processes import is_alive, pid_in
from tests.waiting import wait_until


@pytest.fixture
def watched(folder: Path, service: SmallService) -> Iterator[Watched]:
    """sshd and the agent, with nothing published yet."""
    with enrolled(folder, service) as host:
        yield host


@pytest.fixture
def keys(tmp_path: Path) -> Callable[[str], Key]:
    """Makes key pairs."""
    return lambda name: Key.make(tmp_path / name)


def test_sessions_are_reported_with_the_key_that_signed(watched: Watched, keys: Callable[[str], Key]) -> None:
    offered, signed = keys("offered"), keys("signed")
    watched.publish({USERNAME: [AuthorizedKey(signed.public)]})
    watched.ssh(signed, "-N", "-i", str(offered.path))
    (session,) = watched.wait_for_sessions(1)
    assert session["fingerprint"] == fingerprint_of(signed.public)
    assert (session["user"], session["address"]) == (USERNAME, "127.0.0.1")
    started = datetime.strptime(session["started_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - started) < timedelta(minutes=5)
    wait_until(watched.used, "a use of the key")
    assert {use["fingerprint"] for use in watched.used()} == {fingerprint_of(signed.public)}
    # Whom the log names has an account here, whatever no list of them says.
    assert json.loads((watched.host.state / "sessions.json").read_bytes())["names"] == [USERNAME]
    watched._clients[0].kill()
    watched.wait_for_sessions(0)


def test_each_login_is_reported_once_also_those_while_the_service_was_away(
    watched: Watched, keys: Callable[[str], Key]
) -> None:
    first, second = keys("first"), keys("second")
    watched.publish({USERNAME: [AuthorizedKey(first.public), AuthorizedKey(second.public)]})
    watched.ssh(first, command="true").wait(60)
    expected = [(USERNAME, fingerprint_of(first.public))]
    wait_until(lambda: watched.logins() == expected, "a login")
    refused: list[object] = []

    def refuse(report: dict[str, Any]) -> int | None:
        if "logins" not in report:
            return None
        refused.append(report)
        return 503

    watched.service.refuses = refuse
    for key in (second, first, second):
        watched.ssh(key, command="true").wait(60)
        expected.append((USERNAME, fingerprint_of(key.public)))
    wait_until(lambda: refused, "a report that was not taken")
    # What the service did not get is kept over a restart, and what is too long for it is sent in parts.
    watched.kill_agent()
    watched.service.refuses = lambda report: 413 if len(report.get("logins", {}).get("entries", ())) > 1 else None
    watched.start_agent()
    wait_until(lambda: len(watched.logins()) == len(expected), "the logins meanwhile")
    assert watched.logins() == expected


def test_a_login_that_is_refused_takes_no_other_with_it(watched: Watched, keys: Callable[[str], Key]) -> None:
    some = {fingerprint_of(key.public): key for key in map(keys, ("a", "b", "c"))}
    watched.publish({USERNAME: [AuthorizedKey(key.public) for key in some.values()]})
    watched.service.refuses = lambda report: 503 if "logins" in report else None
    for key in some.values():
        watched.ssh(key, command="true").wait(60)
    # What an agent that never saw the log finds in it happened before, and is not told.
    kept = watched.host.state / "sessions.json"
    wait_until(lambda: kept.exists() and all(one in kept.read_text() for one in some), "the logins to be read")
    not_taken, *others = sorted(some)
    watched.kill_agent()
    watched.service.refuses = lambda report: 400 if not_taken in json.dumps(report) else None
    watched.start_agent()
    wait_until(lambda: {fingerprint for _, fingerprint in watched.logins()} == set(others), "the other logins")


def test_connections_that_are_started_one_by_one_are_known_and_ended(
    folder: Path, service: SmallService, keys: Callable[[str], Key]
) -> None:
    key, stays = keys("key"), keys("stays")
    with enrolled(folder, service, SshdOneByOne) as watched:
        watched.publish({USERNAME: [AuthorizedKey(key.public), AuthorizedKey(stays.public)]})
        client, other = watched.ssh(key, "-N"), watched.ssh(stays, "-N")
        sessions = watched.wait_for_sessions(2)
        assert {one["fingerprint"] for one in sessions} == {fingerprint_of(key.public), fingerprint_of(stays.public)}
        watched.kill_agent()
        watched.start_agent()
        watched.publish({USERNAME: [AuthorizedKey(stays.public)]}, revoked=(key.public,))
        client.wait(60)
        (session,) = watched.wait_for_sessions(1)
        assert session["fingerprint"] == fingerprint_of(stays.public)
        assert other.poll() is None


def test_many_logins_are_few_reports(watched: Watched, keys: Callable[[str], Key]) -> None:
    key, refused = keys("key"), keys("refused")
    watched.publish({USERNAME: [AuthorizedKey(key.public)]})
    watched.wait_for_sessions(0)
    before = len(watched.service.reports)
    began = time.monotonic()
    for _ in range(30):
        assert watched.client.lets_in(key)
    assert not watched.client.lets_in(refused)
    wait_until(watched.used, "a use of the key")
    spent = time.monotonic() - began
    # Beside those of uses some tell what the host itself found, such as whom sshd would refuse: of those there are few.
    assert len(watched.service.reports) - before <= 4 + spent / 5
    assert all(use["fingerprint"] == fingerprint_of(key.public) for use in watched.used())


def test_a_revoked_keys_sessions_end_with_all_that_runs_in_them(
    watched: Watched, keys: Callable[[str], Key], tmp_path: Path
) -> None:
    gone, stays = keys("gone"), keys("stays")
    watched.publish({USERNAME: [AuthorizedKey(gone.public), AuthorizedKey(stays.public)]})
    pids = {name: tmp_path / name for name in ("command", "child", "nohup", "daemon", "master", "other")}
    for path in pids.values():
        path.touch()
    tmp_path.chmod(0o755)
    script = (
        f"echo $$ > {pids['command']}; (sleep 1000 & echo $! > {pids['child']}); "
        f"nohup sleep 1000 >/dev/null 2>&1 & echo $! > {pids['nohup']}; "
        f"setsid -f sh -c 'echo $$ > {pids['daemon']}; exec sleep 1000' >/dev/null 2>&1; sleep 1000"
    )
    clients = [watched.ssh(gone, command=script), watched.ssh(gone, "-N")]
    socket = tmp_path / "m"
    clients.append(watched.ssh(gone, "-M", "-S", str(socket), "-N"))
    wait_until(socket.exists, "a ControlMaster")
    clients.append(watched.ssh(gone, "-S", str(socket), command=f"echo $$ > {pids['master']}; sleep 1000"))
    other = watched.ssh(stays, command=f"echo $$ > {pids['other']}; sleep 1000")
    numbers = {name: pid_in(path) for name, path in pids.items()}
    watched.wait_for_sessions(4)
    assert all(map(is_alive, numbers.values()))
    watched.publish({USERNAME: [AuthorizedKey(stays.public)]}, revoked=(gone.public,))
    for client in clients:
        client.wait(60)
    wait_until(
        lambda: not any(is_alive(pid) for name, pid in numbers.items() if name != "other"),
        "the end of all that the key's sessions ran",
    )
    (session,) = watched.wait_for_sessions(1)
    assert session["fingerprint"] == fingerprint_of(stays.public)
    assert is_alive(numbers["other"])
    assert other.poll() is None


def test_a_temporary_keys_session_ends_with_service_and_file_unchanged(
    watched: Watched, keys: Callable[[str], Key]
) -> None:
    short, lasting = keys("short"), keys("lasting")
    end = datetime.now(UTC) + timedelta(seconds=12)
    watched.publish({USERNAME: [AuthorizedKey(short.public, end), AuthorizedKey(lasting.public)]})
    client, other = watched.ssh(short, "-N"), watched.ssh(lasting, "-N")
    watched.wait_for_sessions(2)
    watched.service.refusal = 503  # nobody to ask
    client.wait(60)
    assert datetime.now(UTC) >= end - timedelta(seconds=1)
    assert other.poll() is None


@pytest.mark.parametrize(("then", "lasting_stays"), [(DROP_TEMPORARY, True), (DROP_ALL, False)])
def test_sessions_of_keys_dropped_for_silence_end_and_may_come_back(
    watched: Watched, keys: Callable[[str], Key], then: str, lasting_stays: bool
) -> None:
    short, lasting = keys("short"), keys("lasting")
    end = datetime.now(UTC) + timedelta(hours=1)
    users = {USERNAME: [AuthorizedKey(short.public, end), AuthorizedKey(lasting.public)]}
    watched.publish(users, offline_policy=OfflinePolicy(5, then))
    client, other = watched.ssh(short, "-N"), watched.ssh(lasting, "-N")
    watched.wait_for_sessions(2)
    watched.service.refusal = 503
    client.wait(60)
    assert not watched.client.lets_in(short)
    if lasting_stays:
        time.sleep(3)
        assert other.poll() is None
    else:
        other.wait(60)
    assert watched.client.lets_in(lasting) is lasting_stays
    watched.service.refusal = None
    watched.client.wait_until_open(short)
    back = watched.ssh(short, "-N")
    watched.wait_for_sessions(2 if lasting_stays else 1)
    time.sleep(3)
    assert back.poll() is None
    said = (watched.host.folder / "agent.log").read_text()
    assert "the key was dropped, because the service was silent for too long" in said


def test_a_login_while_the_agent_was_dead_ends_when_its_key_is_dropped_at_the_start(
    watched: Watched, keys: Callable[[str], Key]
) -> None:
    key = keys("key")
    watched.publish({USERNAME: [AuthorizedKey(key.public)]}, offline_policy=OfflinePolicy(3, DROP_ALL))
    watched.kill_agent()
    watched.service.refusal = 503
    unseen = watched.ssh(key, "-N")
    wait_until(lambda: "Accepted publickey" in watched.sshd.log.read_text(), "a login")
    time.sleep(4)
    assert unseen.poll() is None
    watched.start_agent()
    unseen.wait(60)
    assert not watched.client.lets_in(key)


def test_sessions_of_a_key_taken_away_while_the_agent_was_dead_end(
    watched: Watched, keys: Callable[[str], Key]
) -> None:
    gone, stays = keys("gone"), keys("stays")
    watched.publish({USERNAME: [AuthorizedKey(gone.public), AuthorizedKey(stays.public)]})
    known = watched.ssh(gone, "-N")
    watched.wait_for_sessions(1)
    watched.kill_agent()
    unseen, other = watched.ssh(gone, "-N"), watched.ssh(stays, "-N")
    wait_until(lambda: watched.sshd.log.read_text().count("Accepted publickey") == 3, "two more logins")
    watched.publish({USERNAME: [AuthorizedKey(stays.public)]})
    watched.start_agent()
    known.wait(60)
    unseen.wait(60)
    watched.wait_for_sessions(1)
    assert other.poll() is None


def test_a_session_can_be_ended_by_its_name(watched: Watched, keys: Callable[[str], Key]) -> None:
    key = keys("key")
    users = {USERNAME: [AuthorizedKey(key.public)]}
    watched.publish(users)
    first = watched.ssh(key, "-N")
    (session,) = watched.wait_for_sessions(1)
    second = watched.ssh(key, "-N")
    watched.wait_for_sessions(2)
    watched.publish(users, end_sessions=(session["id"],))
    first.wait(60)
    watched.wait_for_sessions(1)
    assert second.poll() is None
    assert watched.client.lets_in(key)


def test_observe_mode_ends_no_session_of_a_key(watched: Watched, keys: Callable[[str], Key]) -> None:
    key = keys("key")
    watched.publish({USERNAME: [AuthorizedKey(key.public)]}, mode="observe")
    client = watched.ssh(key, "-N")
    watched.wait_for_sessions(1)
    watched.publish({}, revoked=(key.public,), mode="observe")
    other = keys("other")
    watched.publish({USERNAME: [AuthorizedKey(other.public)]}, mode="observe")
    watched.ssh(other, "-N")
    watched.wait_for_sessions(2)
    assert client.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root logs in as somebody else")
def test_another_account_is_watched_and_ended_too(watched: Watched, keys: Callable[[str], Key], tmp_path: Path) -> None:
    name = "keyrack-test"
    key = keys("key")
    with accounts((name,)):
        another_account_is_ended(watched, key, name)


def another_account_is_ended(watched: Watched, key: Key, name: str) -> None:
    """Its login ends with its key, and another account's with the same key goes on."""
    watched.publish({name: [AuthorizedKey(key.public)], USERNAME: [AuthorizedKey(key.public)]})
    client = watched.ssh(key, command="setsid -f sleep 1234.5 >/dev/null 2>&1; sleep 1234.5", user=name)
    other = watched.ssh(key, "-N")
    sessions = watched.wait_for_sessions(2)
    assert {session["user"] for session in sessions} == {name, USERNAME}
    assert _running("1234.5")
    # The same key goes on opening the other account.
    watched.publish({USERNAME: [AuthorizedKey(key.public)]})
    client.wait(60)
    wait_until(lambda: not _running("1234.5"), "the end of its commands")
    watched.wait_for_sessions(1)
    assert other.poll() is None
    os.kill(other.pid, signal.SIGTERM)


def _running(argument: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (path / "cmdline").read_bytes() == b"sleep\0" + argument.encode() + b"\0" and is_alive(int(path.name)):
                found.append(int(path.name))
    return found


def test_a_use_of_a_break_glass_key_is_reported_as_one_though_the_key_is_gone_by_then() -> None:
    glass, usual = public_key(), public_key()
    both = {"deploy": [AuthorizedKey(glass), AuthorizedKey(usual)]}

    def named(users: Any, broken: Any) -> HostDocument:
        return HostDocument("h", 1, ISSUED, users, break_glass=broken)

    pair = ("deploy", fingerprint_of(glass))
    known = break_glass_keys(named(both, {"deploy": (glass,)}), set())
    assert known == {pair}
    assert break_glass_keys(named({"deploy": [AuthorizedKey(usual)]}, {}), known) == {pair}, (
        "it is gone, and may have been used"
    )
    assert break_glass_keys(named(both, {}), known) == set(), "it is a key like any other now"
    assert break_glass_keys(named({}, {"root": (usual,)}), known) == {pair, ("root", fingerprint_of(usual))}


def test_sessions_by_certificates_end_with_their_key_and_their_authority(
    folder: Path, service: SmallService, keys: Callable[[str], Key]
) -> None:
    """Also over a restart of the agent; whose key it is says the authority, so no session is reported with that key."""
    authority, other, own = keys("authority"), keys("another-authority"), keys("own")
    certified, also = keys("certified"), keys("also")
    trusted = folder / "trusted.pub"
    trusted.write_text(f"{authority.public}\n{other.public}\n", "ascii")
    name = f"x CA ED25519 {fingerprint_of(own.public)}"  # of whose choice the authority leaves it
    for key, signer in ((certified, other), (also, authority)):
        given = ["ssh-keygen", "-q", "-s", str(signer.path), "-I", name, "-n", USERNAME]
        subprocess.run([*given, str(key.path.with_suffix(".pub"))], check=True)
    with enrolled(folder, service, settings=f"TrustedUserCAKeys {trusted}") as watched:
        users = {USERNAME: [AuthorizedKey(own.public)]}
        watched.publish(users)
        first, second, third = (watched.ssh(key, "-N") for key in (certified, also, own))
        sessions = watched.wait_for_sessions(3)
        assert sorted(one["fingerprint"] for one in sessions) == ["", "", fingerprint_of(own.public)]
        watched.publish(users, revoked=(certified.public,))
        first.wait(60)
        assert not watched.client.lets_in(certified)
        watched.wait_for_sessions(2)
        watched.kill_agent()
        watched.start_agent()
        watched.publish(users, revoked=(certified.public, authority.public))
        second.wait(60)
        assert not watched.client.lets_in(also)
        watched.wait_for_sessions(1)
        assert third.poll() is None


def test_a_session_ends_with_each_key_that_it_took(
    folder: Path, service: SmallService, keys: Callable[[str], Key]
) -> None:
    first, second = keys("first"), keys("second")
    both = [AuthorizedKey(first.public), AuthorizedKey(second.public)]
    settings = "AuthenticationMethods publickey,publickey\nLogLevel VERBOSE"
    with enrolled(folder, service, settings=settings) as watched:
        for users, revoked in ((both[1:], ()), (both, (first.public,)), (both[:1], ())):
            watched.publish({USERNAME: both})
            client = watched.ssh(first, "-N", "-i", str(second.path))
            (session,) = watched.wait_for_sessions(1)
            assert session["fingerprint"] == fingerprint_of(second.public)
            watched.publish({USERNAME: users}, revoked=revoked)
            client.wait(60)
            watched.wait_for_sessions(0)
