"""Two agents of one host with folders of their own: the second is refused, whoever was killed before it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keyrack.agent.state import Enrolment, StateFolder, StateProblem
from keyrack.agent.system import alone, local
from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document, public_key
from tests.agent.small_service import SmallService
from tests.waiting import wait_until

# An agent that is killed while a child of it has not let go of anything yet.
KILLED = """import os, sys, time
from keyrack.agent.state import Enrolment, StateFolder
from keyrack.agent.system import alone, local
folder, keys = sys.argv[1:]
alone.hold(StateFolder.open(folder), Enrolment("", "", "", "", "", keys, keys + ".revoked"), local.Local())
child = os.fork()
if child == 0:
    time.sleep(600)
print(child, flush=True)
time.sleep(600)
"""

HOLDER = """import sys, time
from keyrack.agent.state import Enrolment, StateFolder
from keyrack.agent.system import alone, local
folder, keys, config = sys.argv[1:]
enrolment = Enrolment("", "", "", "", "", keys + "/a/keys", keys + "/a/revoked", config)
alone.hold(StateFolder.open(folder), enrolment, local.Local(drop_in=config + ".d/00-keyrack.conf"))
print("held", flush=True)
time.sleep(600)
"""


def beside(host: EnrolledHost) -> EnrolledHost:
    """Another agent for the same files."""
    other = EnrolledHost(host.folder)
    other.state = host.folder / "another"
    return other


def test_a_second_agent_for_the_same_files_is_refused(host: EnrolledHost, service: SmallService) -> None:
    key = public_key()
    service.publish(7, service.signer.signed(document(7, {"deploy": [AuthorizedKey(key)]})))
    other, third = beside(host), beside(host)
    third.state = host.folder / "third"
    assert other.agent("enroll", f"--url={service.url}", "--token=t0ken").returncode == 0
    running = subprocess.Popen(host.command("run"), stderr=subprocess.PIPE)
    try:
        service.wait_for_report("applied", 7)
        for agent, command in ((other, ["run"]), (other, ["run", "--once"]), (other, ["uninstall"])):
            ended = agent.agent(*command)
            assert ended.returncode == 1
            assert f"another agent, whose folder is {host.state}, minds {host.keys}" in ended.stderr
        ended = third.agent("enroll", f"--url={service.url}", "--token=t0ken")
        assert (ended.returncode, "minds" in ended.stderr) == (1, True)
        assert not (third.state / "enrolment.json").exists()
        assert key in (host.keys / "deploy").read_text("ascii")
        assert f"another agent, whose folder is {host.state}, minds {host.keys}" in other.agent("doctor").stdout
        assert "another agent" not in host.agent("doctor").stdout
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=30)
    assert "another agent" not in other.agent("doctor").stdout
    assert other.agent("run", "--once").returncode == 0


def test_an_agent_starts_though_a_process_of_a_killed_one_still_runs(folder: Path) -> None:
    for name in ("one", "other"):
        (folder / name).mkdir(mode=0o700)
    keys = folder / "keys"
    enrolment = Enrolment("", "", "", "", "", str(keys), f"{keys}.revoked")
    state = StateFolder.open(str(folder / "other"))
    given = [sys.executable, "-c", KILLED, str(folder / "one"), str(keys)]
    killed = subprocess.Popen(given, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    child = int(killed.stdout.readline())
    try:
        with pytest.raises(StateProblem, match="another agent"):
            alone.hold(state, enrolment, local.Local())
        killed.kill()
        killed.wait()
        os.kill(child, 0)  # it is there, with all that it had open
        alone.hold(state, enrolment, local.Local())
    finally:
        killed.kill()
        os.kill(child, signal.SIGKILL)
        killed.stdout.close()
        alone.leave(os.getpid())


def test_a_second_agent_for_the_same_sshd_settings_is_refused(folder: Path) -> None:
    """Other keys, yet both would write sshd's settings; not where one leaves them alone."""
    for name in ("one", "other"):
        (folder / name).mkdir(mode=0o700)
    config = str(folder / "sshd_config")
    first = Enrolment("", "", "", "", "", f"{folder}/a/keys", f"{folder}/a/revoked", config)
    second = first._replace(keys_folder=f"{folder}/b/keys", revoked_keys=f"{folder}/b/revoked")
    writes = local.Local(drop_in=f"{config}.d/00-keyrack.conf")
    held = [sys.executable, "-c", HOLDER, str(folder / "one"), str(folder), config]
    other = subprocess.Popen(held, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    state = StateFolder.open(str(folder / "other"))
    try:
        assert alone.keeper(config) == str(folder / "one")
        alone.hold(state, second, local.Local())
        with pytest.raises(StateProblem, match=f"minds {config}"):
            alone.hold(state, second, writes)
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
        alone.leave(os.getpid())
    wait_until(lambda: not alone.keeper(config), "no keeper")


def test_an_agent_leaves_no_lock_behind_and_takes_over_that_of_a_killed_one(
    host: EnrolledHost, service: SmallService
) -> None:
    service.publish(7, service.signer.signed(document(7, {})))
    locks = [Path(alone._path(str(place))) for place in (host.keys, host.revoked_keys)]

    def run() -> subprocess.Popen[bytes]:
        return subprocess.Popen(host.command("run"), stderr=subprocess.DEVNULL)

    killed = run()
    wait_until(lambda: locks[0].exists(), "its locks")
    service.wait_for_report("applied", 7)
    killed.kill()
    killed.wait()
    assert locks[0].exists()
    other = EnrolledHost(host.folder / "elsewhere")
    other.folder.mkdir()
    assert other.agent("enroll", f"--url={service.url}", "--token=t0ken").returncode == 0
    assert not locks[0].exists()  # by the other one's start
    service.publish(8, service.signer.signed(document(8, {})))
    running = run()
    service.wait_for_report("applied", 8)
    assert locks[0].exists()
    running.send_signal(signal.SIGTERM)
    running.wait(60)
    assert not locks[0].exists()
    assert not any(Path(alone._path(str(place))).exists() for place in (other.keys, other.revoked_keys))


def test_an_agent_starts_while_another_command_checks_whether_one_runs(
    host: EnrolledHost, service: SmallService
) -> None:
    """Who looks takes the lock for a moment, which lasts where the machine has much else to do."""
    service.publish(7, service.signer.signed(document(7, {})))
    assert host.agent("run", "--once").returncode == 0
    check_lock = (
        "import fcntl, sys, time; file = open(sys.argv[1]); fcntl.lockf(file, fcntl.LOCK_SH); print(flush=True)"
    )
    command = [sys.executable, "-c", f"{check_lock}; time.sleep(0.7)", str(host.state / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        started = host.agent("run", "--once")
    assert started.returncode == 0, started.stderr
