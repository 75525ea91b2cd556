"""Where who is in cannot be known, that is said; each kind of log that hosts have is read."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from keyrack.agent.service.client import ServiceClient
from keyrack.agent.sessions import login_log, unknown
from keyrack.agent.sessions.login_log import FileLog, Journal, LoggedLogin, LogPosition
from keyrack.agent.sessions.unknown import UnknownSessions, is_in
from keyrack.agent.sessions.watch import SessionWatch
from keyrack.agent.sshd.settings import Sshd
from keyrack.agent.state import Enrolment, StateFolder
from keyrack.agent.system import processes
from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.small_service import SmallService
from tests.agent.watched_host import enrolled
from tests.login.private_sshd import USERNAME, Key
from tests.waiting import wait_until

FINGERPRINT = "SHA256:oJ6hYG5/9hSbTjdX8PM1tTMeXH8Sm88K/dKOWytfN2g"
OTHER = "SHA256:Gfdge9QneMOrP8zCPh4UkJO66aNGRQ90fEiGvjXMzGk"
SAID = f"Accepted publickey for deploy from 192.0.2.7 port 41000 ssh2: ED25519 {FINGERPRINT}"


@pytest.mark.parametrize(
    "line",
    [
        f"Nov 26 12:00:01 web-1 sshd[812]: {SAID}",
        f"Nov  6 12:00:01 web-1 sshd-session[812]: {SAID}",
        f"2026-11-26T12:00:01.123456+01:00 web-1 sshd[812]: {SAID}",
        f"Nov 26 12:00:01 web-1 auth.info sshd[812]: {SAID}",  # busybox
        f"Nov 26 12:00:01 web-1 authpriv.info sshd-session[812]: {SAID}",
    ],
)
def test_lines_of_every_kind_of_syslog_are_read(line: str) -> None:
    assert FileLog("", LogPosition())._line(line, 5.0) == LoggedLogin(
        "deploy", "192.0.2.7", 41000, FINGERPRINT, 812, 5.0
    )


@pytest.mark.parametrize(
    ("last", "fingerprint", "first"),
    [
        (f"publickey for deploy from 192.0.2.7 port 41000 ssh2: ED25519 {OTHER}", OTHER, (FINGERPRINT,)),
        ("keyboard-interactive/pam for deploy from 192.0.2.7 port 41000 ssh2", FINGERPRINT, ()),
        ("password for deploy from 192.0.2.7 port 41001 ssh2", "", ()),  # another connection
        ("password for backup from 192.0.2.7 port 41000 ssh2", "", ()),
    ],
)
def test_a_key_that_was_not_the_last_proof_is_known(
    tmp_path: Path, last: str, fingerprint: str, first: tuple[str, ...]
) -> None:
    log = tmp_path / "sshd.log"
    log.write_text(f"{SAID.replace('Accepted', 'Partial')}\nAccepted {last}\n")
    (login,) = FileLog(str(log), LogPosition()).read()
    assert (login.fingerprint, login.first) == (fingerprint, first)


@pytest.mark.parametrize("way", ["renamed", "copied and emptied", "removed"])
def test_a_log_is_followed_over_its_rotation(tmp_path: Path, way: str) -> None:
    path = tmp_path / "messages"
    line = f"Nov 26 12:00:01 web-1 sshd[812]: {SAID}\n"
    path.write_text(line)
    log = FileLog(str(path), LogPosition())
    assert len(log.read()) == 1
    with path.open("a") as old:
        old.write(line)
        old.flush()
        if way == "renamed":
            path.rename(tmp_path / "messages.1")
        elif way == "removed":
            path.unlink()
        else:
            assert len(log.read()) == 1
            old.truncate(0)
        path.write_text(line)
        assert len(log.read()) == (1 if way == "copied and emptied" else 2)
    log.close()


def test_an_old_journalctl_is_asked_with_fewer_words(tmp_path: Path) -> None:
    """As systemd before 236 has it: seen with 229."""
    entry = json.dumps({"__REALTIME_TIMESTAMP": "5000000", "MESSAGE": SAID, "_PID": "812"})
    program = tmp_path / "journalctl"
    refuses = 'case "$*" in *--output-fields*) echo "unrecognized option" >&2; exit 1 ;; esac'
    program.write_text(f"#!/bin/sh\n{refuses}\necho '{entry}'\nexec sleep 60\n", "ascii")
    program.chmod(0o755)
    journal = Journal(str(program), LogPosition())
    found: list[LoggedLogin] = []

    def read() -> list[LoggedLogin]:
        found.extend(journal.read())
        return found

    try:
        wait_until(read, "the login that it logged")
    finally:
        journal.close()
    assert [(login.user, login.pid) for login in found] == [("deploy", 812)]


def test_the_journal_is_followed_though_the_clock_was_set_back(tmp_path: Path) -> None:
    """As where a snapshot was put back, or a wrong clock was set right: who comes then is seen all the same."""
    now, ahead = int(time.time()), int(time.time()) + 3600
    entry = json.dumps({"__REALTIME_TIMESTAMP": f"{now}000000", "MESSAGE": SAID, "_PID": "812"})
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/given\necho '{entry}'\nexec sleep 60\n", "ascii")
    program.chmod(0o755)
    journal = Journal(str(program), LogPosition(0, ahead * 1_000_000))
    try:
        wait_until(journal.read, "the login that it logged")
    finally:
        journal.close()
    since = next(word for word in (tmp_path / "given").read_text("ascii").split() if word.startswith("--since=@"))
    assert int(since.partition("@")[2]) < ahead


def test_an_sshd_that_logs_no_logins_is_reported(folder: Path, service: SmallService) -> None:
    with enrolled(folder, service, settings="LogLevel QUIET") as watched:
        watched.publish({})

        def unknown_sessions() -> str:
            return next((one["sessions_unknown"] for one in list(service.reports) if "sessions_unknown" in one), "")

        wait_until(unknown_sessions, "words on what is not known")
        assert "LogLevel QUIET" in unknown_sessions()


@pytest.mark.parametrize(
    ("level", "methods", "keyless", "is_reported"),
    [
        ("INFO", "publickey,password", 1, True),
        ("INFO", "publickey,password", 0, False),
        ("INFO", "publickey password", 1, False),
        ("VERBOSE", "publickey,password", 1, False),
    ],
)
def test_a_session_whose_key_the_log_does_not_name_is_reported(
    folder: Path, level: str, methods: str, keyless: int, is_reported: bool
) -> None:
    config = folder / "sshd_config"
    config.write_text(f"LogLevel {level}\nMatch User deploy\n  AuthenticationMethods {methods}\n")
    words = UnknownSessions(Sshd(str(config)), FileLog(str(folder / "log"), LogPosition())).why((), keyless)
    assert ("by which key somebody is in may not be known" in words) is is_reported


def test_a_connection_that_the_log_does_not_know_is_reported(
    folder: Path, service: SmallService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unknown, "LOG_DELAY_SECONDS", 0.0)
    key = Key.make(tmp_path / "key")
    with enrolled(folder, service) as watched:
        watched.publish({USERNAME: [AuthorizedKey(key.public)]})
        unknown_sessions = UnknownSessions(
            Sshd(str(watched.sshd.config)), FileLog(str(tmp_path / "nothing"), LogPosition())
        )
        with socket.create_connection(("127.0.0.1", watched.sshd.port)) as waiting:
            assert waiting.recv(4) == b"SSH-"
            (stranger,) = processes.children(watched.sshd.pid)
            assert not is_in(stranger)
            assert unknown_sessions.why([stranger]) == ""
        wait_until(lambda: not processes.children(watched.sshd.pid), "the end of that connection")
        watched.ssh(key, "-N")
        wait_until(lambda: is_in_now(watched.sshd.pid), "a login")
        assert "by 1 connection of sshd is not known" in unknown_sessions.why(processes.children(watched.sshd.pid))
        watched.wait_for_sessions(1)
        assert not any(report.get("sessions_unknown") for report in list(service.reports))


def test_names_that_anybody_could_write_into_the_log_are_not_looked_up_as_accounts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of accounts asked for a thousand of them would not say in time whom it has."""
    log = tmp_path / "messages"
    monkeypatch.setattr(login_log, "SYSLOG_FILES", (str(log),))
    log.write_text("".join(f"Nov 26 12:00:01 web-1 sshd[812]: {SAID}\n".replace("deploy", f"a{n}") for n in range(50)))
    state = StateFolder.open(str(tmp_path / "agent"), create=True)
    enrolment = Enrolment("", "", "", "", "", "/keys", "/revoked", str(tmp_path / "config"))
    watch = SessionWatch(state, enrolment, ServiceClient("http://127.0.0.1:1", ""), print, str(log))
    watch.step()
    assert watch.names == set()


def is_in_now(sshd: int) -> bool:
    return any(map(is_in, processes.children(sshd)))


def test_a_host_without_any_log_says_so(folder: Path) -> None:
    assert "was not found" in UnknownSessions(Sshd(str(folder / "none")), None).why(())
