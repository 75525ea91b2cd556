"""An account of the host does what it can against the agent of that host, which goes on delivering."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.agent.keys import account_tasks
from keyrack.agent.system import as_account
from keyrack.agent.system.folder import Folder, FolderProblem
from keyrack.protocol.host_document import AuthorizedKey, KeyRemoval
from tests.agent.signed_documents import public_key
from tests.agent.small_service import SmallService
from tests.agent.watched_host import Watched, enrolled
from tests.login.observed_host import accounts
from tests.login.private_sshd import USERNAME
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start an attacker with another account")
MALLORY, VICTIM = "krmallory", "krvictim"
HANGS_SECONDS = 10.0  # what no document may take, however slow the machine

# What each does: as MALLORY, in a loop, `ssh` is the folder .ssh in its home.
ATTACKS = {
    "stops all its processes": "os.kill(-1, signal.SIGSTOP)",
    "a pipe": "fresh(); os.mkfifo(keys)",
    "a device": "fresh(); os.symlink('/dev/zero', keys); time.sleep(.05)",
    "a terminal": "fresh(); os.symlink('/dev/tty', keys); time.sleep(.05)",
    "a file without end": "open(keys, 'ab').write(b'x' * 4096 + b' y\\n')",
    "a file of a terabyte": "fresh(); open(keys, 'wb').truncate(1 << 40); time.sleep(.05)",
    "a loop of links": "fresh(); os.symlink(keys, keys); time.sleep(.05)",
    "a folder": "fresh(); os.mkdir(keys); time.sleep(.05)",
    "links to what is root's": "fresh(); os.symlink(random.choice(['/root', '/etc/shadow', '/root/.bashrc']), keys)",
    "a home that comes and goes": "os.rename(ssh, ssh + '2'); os.rename(ssh + '2', ssh)",
    "a lease": "fresh(); f = open(keys, 'wb'); fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK); time.sleep(.2)",
    "a million lines": "fresh(); open(keys, 'w').write('x y z\\n' * 300_000); time.sleep(.05)",
}
ATTACK = """
import fcntl, os, random, shutil, signal, sys, time
signal.signal(signal.SIGIO, signal.SIG_IGN)
uid, ssh = int(sys.argv[1]), sys.argv[2]
os.setgroups([]); os.setgid(uid); os.setuid(uid)
keys = os.path.join(ssh, "authorized_keys")
def fresh():
    if os.path.isdir(keys) and not os.path.islink(keys):
        shutil.rmtree(keys)
    elif os.path.lexists(keys):
        os.unlink(keys)
while True:
    try:
        exec(sys.argv[3])
    except OSError:
        pass
    time.sleep(.001)
"""


@pytest.fixture
def homes() -> Iterator[dict[str, Path]]:
    """The folders .ssh of two accounts."""
    with accounts((MALLORY, VICTIM)):
        found = {}
        for name in (MALLORY, VICTIM):
            account = pwd.getpwnam(name)
            path = Path(account.pw_dir, ".ssh")
            path.mkdir(mode=0o700)
            os.chown(path, account.pw_uid, account.pw_gid)
            found[name] = path
        yield found


@pytest.fixture
def watched(homes: dict[str, Path], folder: Path, service: SmallService) -> Iterator[Watched]:
    """sshd and the agent, which looks at both accounts' files."""
    with enrolled(folder, service) as host:
        config = host.sshd.config
        config.write_text(config.read_text("ascii").replace("/%u\n", "/%u .ssh/authorized_keys\n"), "ascii")
        yield host


def write_keys(home: Path, text: str) -> None:
    """As the account would."""
    path = home / "authorized_keys"
    path.write_text(text, "ascii")
    os.chown(path, home.stat().st_uid, home.stat().st_gid)


def attack(home: Path, code: str) -> subprocess.Popen[bytes]:
    """Begin to attack."""
    return subprocess.Popen([sys.executable, "-I", "-c", ATTACK, str(home.stat().st_uid), str(home), code])


def deliver(host: Watched, **more: object) -> float:
    """Publish a document; answers the seconds until its file was in place."""
    key = public_key()
    began = time.monotonic()
    host.publish_alone({USERNAME: [AuthorizedKey(key)]}, **more)
    file = host.host.keys / USERNAME
    while not (file.exists() and key.encode() in file.read_bytes()):
        assert time.monotonic() - began < HANGS_SECONDS, "the agent keeps a document waiting"
        time.sleep(0.01)
    return time.monotonic() - began


def found(service: SmallService) -> list[dict[str, object]]:
    """The last list of unmanaged keys that was reported."""
    lists = [report["keys_found"] for report in list(service.reports) if "keys_found" in report]
    return lists[-1] if lists else []


@pytest.mark.parametrize("what", ATTACKS)
def test_documents_arrive_and_others_keys_are_found_under_attack(
    watched: Watched, homes: dict[str, Path], service: SmallService, what: str
) -> None:
    deliver(watched)
    enemy = attack(homes[MALLORY], ATTACKS[what])
    try:
        took = [deliver(watched) for _ in range(5)]
        write_keys(homes[VICTIM], f"{public_key()} victim\n")
        wait_until(lambda: any(one["comment"] == "victim" for one in found(service)), "the other account's key")
        took += [deliver(watched) for _ in range(5)]
        assert enemy.poll() is None
    finally:
        enemy.kill()
        enemy.wait()
    print(f"{what}: slowest document {max(took):.2f} s")
    assert not [one for one in found(service) if one["username"] == MALLORY and one["fingerprint"]]


def test_an_account_cannot_stop_the_removal_of_a_key(
    watched: Watched, homes: dict[str, Path], service: SmallService
) -> None:
    """Whoever stops the process that takes the key out of its file stops neither documents nor, in the end, that."""
    key = public_key()
    deliver(watched)
    write_keys(homes[MALLORY], f"{key} rogue\n")
    wait_until(lambda: any(one["comment"] == "rogue" for one in found(service)), "the key")
    rogue = next(one for one in found(service) if one["comment"] == "rogue")
    order = KeyRemoval(str(rogue["path"]), str(rogue["fingerprint"]))
    enemy = attack(homes[MALLORY], ATTACKS["stops all its processes"])
    try:
        took = [deliver(watched, remove_keys=[order]) for _ in range(10)]
        assert enemy.poll() is None
    finally:
        enemy.kill()
        enemy.wait()
    print(f"slowest document {max(took):.2f} s")
    file = homes[MALLORY] / "authorized_keys"
    wait_until(lambda: key not in file.read_text("ascii"), "a file without the key")
    wait_until(lambda: not any(one["comment"] == "rogue" for one in found(service)), "a report without it")


def test_a_stopped_process_is_killed_and_forgotten(homes: dict[str, Path]) -> None:
    account = pwd.getpwnam(MALLORY)
    enemy = attack(homes[MALLORY], ATTACKS["stops all its processes"])
    began = time.monotonic()

    def slow() -> bytes:
        time.sleep(0.5)
        return b""

    try:
        with pytest.raises(as_account.AccountProblem, match="no end"):
            as_account.run(account, slow, seconds=2)
    finally:
        enemy.kill()
        enemy.wait()
    assert time.monotonic() - began < HANGS_SECONDS
    assert as_account.left() == ()
    assert as_account.run(account, lambda: str(os.getuid()).encode()) == str(account.pw_uid).encode()


def test_a_process_holds_nothing_of_the_agents(tmp_path: Path) -> None:
    """One that does not end must not keep the lock or the service's connection when the agent ends."""
    with open(tmp_path / "lock", "w", encoding="ascii"):
        listed = as_account.run(pwd.getpwuid(0), lambda: " ".join(os.listdir("/proc/self/fd")).encode()).split()
    assert len([number for number in listed if int(number) > 2]) <= 2  # the answer's pipe, and the list itself


def test_a_home_that_does_not_answer_delays_no_other_account(homes: dict[str, Path]) -> None:
    """A file system that does not answer: the others' files are looked at all the same."""
    mallory, victim = pwd.getpwnam(MALLORY), pwd.getpwnam(VICTIM)

    def slow(seconds: float) -> int:
        time.sleep(seconds)
        return os.geteuid()

    def task(account: pwd.struct_passwd, seconds: float) -> account_tasks.Task:
        return account_tasks.Task(account.pw_uid, account.pw_gid, account.pw_name, lambda: slow(seconds))

    tasks = [task(mallory, 0), task(mallory, 600), task(victim, 0), task(mallory, 0), task(victim, 0)]
    answers = account_tasks.run(tasks, one=1)
    assert [answer.value for answer in answers] == [mallory.pw_uid, None, victim.pw_uid, None, victim.pw_uid]
    assert [answer.problem for answer in answers] == [
        "",
        "no answer within 1 seconds",
        "",
        "no answer within 1 seconds",
        "",
    ]
    answers = account_tasks.run([task(mallory, 600), *[task(victim, 0.3) for _ in range(20)]], one=1, everything=2)
    assert answers[1].value == victim.pw_uid
    assert answers[-1].problem == account_tasks.NO_TIME


def test_an_account_cannot_signal_the_process_that_scans_its_home(homes: dict[str, Path]) -> None:
    """It has the account's rights for files, as sshd has, and is root's for signals."""
    mallory = pwd.getpwnam(MALLORY)
    stop = f"import os; os.setgid({mallory.pw_gid}); os.setuid({mallory.pw_uid}); os.kill(PID, {signal.SIGSTOP:d})"

    go_on = homes[MALLORY] / "go-on"

    def work() -> int:
        while not go_on.exists():
            time.sleep(0.02)
        return os.getpid()

    results: list[account_tasks.TaskResult] = []
    looker = threading.Thread(
        target=lambda: results.extend(
            account_tasks.run([account_tasks.Task(mallory.pw_uid, mallory.pw_gid, MALLORY, work)], one=20)
        )
    )
    looker.start()
    children: list[int] = []

    def has_rights() -> bool:
        children[:] = [
            int(path.name)
            for path in Path("/proc").glob("[0-9]*")
            if (path / "status").exists() and f"Uid:\t0\t{mallory.pw_uid}\t0" in (path / "status").read_text("ascii")
        ]
        return bool(children)

    wait_until(has_rights, "a process with the account's rights")
    ended = subprocess.run(
        [sys.executable, "-c", stop.replace("PID", str(children[0]))], capture_output=True, check=False
    )
    assert b"PermissionError" in ended.stderr
    go_on.touch()
    looker.join()
    assert results[0].value == children[0]


@pytest.mark.parametrize("create", ["new", "a/b/new"])
def test_root_follows_no_link_that_a_user_may_set(homes: dict[str, Path], tmp_path: Path, create: str) -> None:
    canary = tmp_path / "canary"
    canary.write_text("root's", "ascii")
    canary.chmod(0o600)
    enemy = attack(homes[MALLORY], f"fresh(); os.mkdir(keys); os.rmdir(keys); os.symlink({str(canary)!r}, keys)")
    try:
        for _ in range(200):
            with pytest.raises((FolderProblem, OSError)):
                Folder.open(str(homes[MALLORY] / create), create=True)
            with pytest.raises((FolderProblem, OSError)):
                Folder.open(str(homes[MALLORY] / "authorized_keys"), create=True)
    finally:
        enemy.kill()
        enemy.wait()
    assert canary.stat().st_mode & 0o777 == 0o600
    assert not {"new", "a"} & set(os.listdir(homes[MALLORY]))
