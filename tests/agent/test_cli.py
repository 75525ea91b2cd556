"""The agent's command as an operator meets it: help, refusals in words, status, doctor, and the real loop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keyrack import __version__
from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document, public_key
from tests.agent.small_service import SmallService
from tests.login.private_sshd import private_sshd
from tests.waiting import wait_until


def agent(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the agent's command."""
    return subprocess.run(
        [sys.executable, "-m", "keyrack.agent", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def test_help_and_version_answer() -> None:
    assert agent("--version").stdout == f"keyrack-agent {__version__}\n"
    for command in ("enroll", "run", "status", "doctor"):
        assert command in agent("--help").stdout
        ended = agent(command, "--help")
        assert ended.returncode == 0
        assert "--state-dir" in ended.stdout


@pytest.mark.parametrize("command", ["run", "status", "doctor"])
def test_commands_before_enrolment_say_what_to_do(command: str, folder: Path) -> None:
    ended = agent(command, "--state-dir", str(folder / "agent"))
    assert ended.returncode == 1
    assert "enroll" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_enrolment_does_not_print_the_secret(host: EnrolledHost) -> None:
    kept = host.state / "enrolment.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert "secret-of-the-host" in kept.read_text()
    for ended in (host.agent("status"), host.agent("doctor"), host.agent("run", "--once")):
        assert "secret-of-the-host" not in ended.stdout + ended.stderr


def test_enrolment_makes_the_files_that_sshd_needs(host: EnrolledHost) -> None:
    assert host.revoked_keys.is_file()
    assert os.listdir(host.keys) == []


def test_a_refused_enrolment_shows_the_services_words(folder: Path, service: SmallService) -> None:
    service.refusal = 403
    host = EnrolledHost(folder)
    ended = host.agent("enroll", f"--url={service.url}", "--token=used")
    assert ended.returncode == 1
    assert "no such host" in ended.stderr
    assert not (host.state / "enrolment.json").exists()


@pytest.mark.parametrize(
    ("mode", "sent"), [("observe", "adopt"), ("adopt", "adopt"), ("auto", "auto"), ("enforce", "enforce")]
)
def test_enrolment_sends_the_mode_by_its_older_name(folder: Path, service: SmallService, mode: str, sent: str) -> None:
    ended = EnrolledHost(folder).agent("enroll", f"--url={service.url}", "--token=t0ken", f"--mode={mode}")
    assert ended.returncode == 0, ended.stderr
    assert service.enrolments[-1]["mode"] == sent


def test_doctor_and_status_change_nothing(host: EnrolledHost, service: SmallService) -> None:
    """Neither while the agent runs nor otherwise: not even for a moment, as the folder's times show."""
    service.publish(1, service.signer.signed(document(1, {"deploy": [AuthorizedKey(public_key())]})))
    host.agent("run", "--once")

    def state() -> list[tuple[str, int, int]]:
        paths = [host.state, *sorted(host.state.iterdir()), host.keys, *sorted(host.keys.iterdir())]
        return [(str(path), path.stat().st_mtime_ns, path.stat().st_ino) for path in paths]

    before = state()
    for command in ("doctor", "status"):
        host.agent(command)
    assert state() == before


def test_status_says_how_it_fares(host: EnrolledHost, service: SmallService) -> None:
    before = host.agent("status")
    assert before.returncode == 1
    assert "no revision is in force yet" in before.stdout
    service.publish(7, service.signer.signed(document(7, {"deploy": [AuthorizedKey(public_key())]})))
    running = subprocess.Popen(host.command("run"), stderr=subprocess.PIPE)
    try:
        service.wait_for_report("applied", 7)
        wait_until(lambda: host.agent("status").returncode == 0, "a status without complaint")
        status = host.agent("status").stdout
        assert "revision 7 is in force" in status
        assert "the agent is running" in status
        second = host.agent("run")
        assert second.returncode == 1
        assert "another agent" in second.stderr
    finally:
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=30)
    assert running.returncode == 0
    assert b"Traceback" not in errors
    after = host.agent("status")
    assert after.returncode == 1
    assert "not running" in after.stdout


def test_the_agent_follows_the_service_and_survives_its_absence(host: EnrolledHost, service: SmallService) -> None:
    key = public_key()
    service.publish(1, service.signer.signed(document(1, {"deploy": [AuthorizedKey(key)]})))
    running = subprocess.Popen(host.command("run"), stderr=subprocess.DEVNULL)
    try:
        service.wait_for_report("applied", 1)
        service.refusal = 503
        service.publish(2, service.signer.signed(document(2, {"deploy": []})))
        wait_until(lambda: "503" in host.agent("status").stdout, "a word about the service")
        assert key in (host.keys / "deploy").read_text()
        service.refusal = None
        service.wait_for_report("applied", 2)
        assert key not in (host.keys / "deploy").read_text()
    finally:
        running.kill()
        running.wait()


def test_the_doctor_names_what_is_wrong(host: EnrolledHost, service: SmallService) -> None:
    service.publish(1, service.signer.signed(document(1, {"deploy": [AuthorizedKey(public_key())]})))
    assert host.agent("run", "--once").returncode == 0
    (host.keys / "deploy").write_text("ssh-ed25519 AAAA rogue\n")
    said = host.agent("doctor").stdout
    assert f"{host.keys}/deploy is not as the document says" in said
    host.revoked_keys.unlink()
    assert f"{host.revoked_keys} is not as the document says" in host.agent("doctor").stdout
    service.refusal = 410
    assert "the service refuses this host: no such host" in host.agent("doctor").stdout
    assert "Traceback" not in host.agent("doctor").stderr


def test_the_doctor_reads_sshds_settings(folder: Path, service: SmallService) -> None:
    with private_sshd(folder) as (server, _):
        host = EnrolledHost(folder)
        host.keys, host.revoked_keys = server.keys, server.revoked_keys
        environment = {"KEYRACK_AGENT_URL": service.url, "KEYRACK_AGENT_TOKEN": "t0ken"}
        ended = host.agent("enroll", f"--sshd-config={server.config}", environment=environment)
        assert ended.returncode == 0, ended.stderr
        said = host.agent("doctor").stdout
        assert f"ok   sshd has AuthorizedKeysFile {server.keys}/%u" in said
        assert f"ok   sshd has RevokedKeys {server.revoked_keys}" in said
        server.drop_in.write_text("AuthorizedKeysFile .ssh/authorized_keys\nRevokedKeys none\n")
        said = host.agent("doctor").stdout
        assert f"put into its settings: AuthorizedKeysFile {server.keys}/%u" in said
        assert f"put into its settings: RevokedKeys {server.revoked_keys}" in said
        assert "get in beside Keyrack's keys" not in said
        server.drop_in.write_text(f"TrustedUserCAKeys {folder}/ca.pub\n")
        said = host.agent("doctor").stdout
        assert f"TrustedUserCAKeys {folder}/ca.pub: all whom an authority there certifies get in" in said


@pytest.mark.parametrize("command", [("status",), ("doctor",), ("run", "--once")])
def test_text_of_others_does_nothing_to_a_terminal(command: tuple[str, ...], host: EnrolledHost) -> None:
    kept = host.state / "enrolment.json"
    fields = json.loads(kept.read_text("utf-8"))
    kept.write_text(json.dumps({**fields, "server_name": "web\nok   all is well\x1b[2J\u202e"}), "utf-8")
    ended = host.agent(*command)
    shown = ended.stdout + ended.stderr
    assert "web\\nok   all is well\\x1b[2J\\u202e" in shown
    assert all(line.isprintable() for line in shown.split("\n")), shown
