"""Homes on file systems of a network, whose server is away, answers with errors, or does not trust root."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from keyrack.agent.keys.remove_keys import remove_keys
from keyrack.agent.system import account_names, as_account
from keyrack.protocol import host_document
from keyrack.protocol.host_document import AuthorizedKey, HostDocument, KeyRemoval
from keyrack.protocol.report import KEY, UNREADABLE, ReportedKey
from tests import leftovers, own_machine
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.network_home import BROKEN, HANGS, STALE, NetworkHome, mounted
from tests.agent.signed_documents import HOST, ISSUED, public_key
from tests.agent.small_service import SmallService
from tests.agent.test_unmanaged_keys import of, put, scanner
from tests.login.observed_host import accounts, set_home
from tests.waiting import wait_until

NEAR, FAR, FAR_TOO = "krnear", "krfar", "krfartoo"
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="a file system of one's own takes root and FUSE"
)


@pytest.fixture
def near() -> Iterator[Path]:
    """A home on this machine's disk, with one key; those of the two others are empty folders."""
    with accounts((NEAR, FAR, FAR_TOO)):
        home = Path(pwd.getpwnam(NEAR).pw_dir)
        put(home / ".ssh" / "authorized_keys", f"{public_key()} near\n")
        yield home
    # The servers have ended by now.
    wait_until(none_waits, "what waited for them to end")


def none_waits() -> bool:
    """Whether every process that looked has ended."""
    as_account.reap()
    return not as_account.left()


@contextmanager
def far(folder: Path, name: str = FAR) -> Iterator[NetworkHome]:
    """A home that lies elsewhere, with one key."""
    account = pwd.getpwnam(name)
    (folder / name).mkdir()
    with mounted(Path(account.pw_dir), account.pw_uid, f"{public_key()} far\n", folder / name) as home:
        yield home


def kinds(found: list[ReportedKey]) -> set[tuple[str, str, str]]:
    """Of what was found in the usual files: account, kind, and the comment or the problem."""
    return {(one.username, one.kind, one.comment or one.problem) for name in (NEAR, FAR) for one in of(found, name)}


def test_a_home_that_does_not_answer_hides_no_other_account(near: Path, tmp_path: Path) -> None:
    """The agent that begins meanwhile knows all accounts, and says which one it could not look at."""
    with far(tmp_path) as home:
        assert kinds(scanner(tmp_path).scan()) == {(NEAR, KEY, "near"), (FAR, KEY, "far")}
        home.answers(HANGS)
        scan = scanner(tmp_path)
        for words in ("no answer within 3 seconds", as_account.NOT_ENDED):
            assert kinds(scan.scan()) == {(NEAR, KEY, "near"), (FAR, UNREADABLE, words)}
            assert {cut.username for cut in scan.cut} == {FAR}
            assert scan.problem == ""


def test_homes_that_answer_are_scanned_however_many_others_do_not(
    near: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(as_account, "MAX_LEFT", 1)
    with far(tmp_path) as home, far(tmp_path, FAR_TOO) as other:
        home.answers(HANGS)
        other.answers(HANGS)
        scan = scanner(tmp_path)
        for _ in range(2):
            found = scan.scan()
            assert kinds(found) >= {(NEAR, KEY, "near")}
            assert {cut.username for cut in scan.cut} == {FAR, FAR_TOO}
        assert as_account.TOO_MUCH in {cut.why for cut in scan.cut}
        assert len(as_account.left()) == 1


def test_a_file_system_that_does_not_answer_is_reported_without_its_owner(near: Path, tmp_path: Path) -> None:
    """One beside the homes that is nobody's by name is said, once it could be a home of somebody."""
    account = pwd.getpwnam(FAR)
    shared = near.parent / "kr-shared"
    shared.mkdir()
    with ExitStack() as stack:
        stack.callback(shared.rmdir)
        home = stack.enter_context(mounted(shared, account.pw_uid, "", tmp_path))
        home.answers(HANGS)
        scan = scanner(tmp_path)
        assert kinds(scan.scan()) == {(NEAR, KEY, "near")}
        assert scan.problem == f"the homes in {shared} were not listed: no answer within 10 seconds"
        home.end()


def test_homes_that_root_may_not_list_are_reported(near: Path, tmp_path: Path) -> None:
    """Also where their folder is somebody's own, as a server has it that knows accounts by other numbers."""
    homes = Path(tempfile.mkdtemp(prefix="kr-homes-", dir="/srv"))  # which all runs of tests on this machine share
    leftovers.tell("folder", str(homes))
    usual = Path(pwd.getpwnam(FAR).pw_dir)
    try:
        set_home(FAR, homes / FAR)
        with mounted(homes, pwd.getpwnam("nobody").pw_uid, "", tmp_path):
            scan = scanner(tmp_path)
            scan.scan()
            assert scan.problem == f"the homes in {homes} were not all listed: {os.strerror(errno.EACCES)}"
    finally:
        set_home(FAR, usual)
        homes.rmdir()


def test_homes_beyond_the_number_that_is_scanned_are_reported(
    near: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = near.parent / "kr-shared"
    shared.mkdir()
    try:
        with mounted(shared, pwd.getpwnam(FAR).pw_uid, "", tmp_path):
            monkeypatch.setattr(account_names, "_MAX_HOMES_ELSEWHERE", 0)
            scan = scanner(tmp_path)
            scan.scan()
            assert scan.problem == "1 home on file systems of their own were not looked at"
    finally:
        shared.rmdir()
    monkeypatch.setattr(account_names, "_MAX_HOMES", 1)
    scan = scanner(tmp_path)
    scan.scan()
    assert f"there are more than 1 homes in {near.parent}" in scan.problem


@pytest.mark.parametrize(("how", "number"), [(STALE, errno.ESTALE), (BROKEN, errno.EIO)])
def test_a_home_that_answers_with_an_error_is_reported_and_not_taken_for_empty(
    near: Path, tmp_path: Path, how: str, number: int
) -> None:
    with far(tmp_path) as home:
        scan = scanner(tmp_path)
        scan.scan()
        home.answers(how)
        assert kinds(scan.scan()) == {(NEAR, KEY, "near"), (FAR, UNREADABLE, os.strerror(number))}
        assert {cut.username for cut in scan.cut} == {FAR}
        assert kinds(scanner(tmp_path).scan()) == {(NEAR, KEY, "near"), (FAR, UNREADABLE, os.strerror(number))}


def test_a_key_is_taken_out_as_its_account_where_root_is_not_trusted(near: Path, tmp_path: Path) -> None:
    """This file system takes no change; that it is the account who tries is seen by what is said."""
    with far(tmp_path) as home:
        found = scanner(tmp_path).scan()
        (one,) = of(found, FAR)
        assert one.fingerprint
        order = KeyRemoval(one.path, one.fingerprint)
        (words,) = remove_keys([order], found)
        assert words.endswith(os.strerror(errno.EROFS))
        home.answers(HANGS)
        assert "no end within" in remove_keys([order], found)[0]
        # Root's own files are not kept waiting for it.
        assert os.geteuid() not in as_account.left()


def test_the_agent_goes_on_while_a_home_does_not_answer(
    near: Path, tmp_path: Path, host: EnrolledHost, service: SmallService
) -> None:
    """With settings that have it look there: a file of keys in the home beside Keyrack's, and a folder to shut in."""
    scanner(
        tmp_path,
        f"AuthorizedKeysFile .ssh/authorized_keys {host.keys}/%u\nRevokedKeys {host.revoked_keys}\n"
        f"Match User {FAR_TOO}\n  ChrootDirectory {pwd.getpwnam(FAR).pw_dir}\n",
    )
    config = tmp_path / "config"
    enrolled = host.agent(
        "enroll",
        "--replace",
        f"--sshd-config={config}",
        environment={"KEYRACK_AGENT_URL": service.url, "KEYRACK_AGENT_TOKEN": "t0ken"},
    )
    assert enrolled.returncode == 0, enrolled.stderr
    users = {name: (AuthorizedKey(public_key()),) for name in (NEAR, FAR, FAR_TOO)}
    text = host_document.encode(HostDocument(HOST, 5, ISSUED, users))
    service.publish(5, service.signer.signed(text))
    with far(tmp_path) as home:
        home.answers(HANGS)
        for _ in range(2):  # the first scan of an agent that starts is a whole one
            ended = host.agent("run", "--once")  # which is waited for a minute, not for good
            assert "revision 5 is in force" in ended.stderr, ended.stderr
        logins = service.reports[-1]["facts"]["logins"]
    assert set(logins[FAR_TOO]) == {"why"}
    assert "does not answer" in logins[FAR_TOO]["why"]
    assert logins[NEAR] == logins[FAR] == {}


@pytest.mark.parametrize("how", ["ecryptfs", "homed", "fstab", "pam_mount"])
def test_a_home_that_a_login_opens_is_unknown_until_then(near: Path, tmp_path: Path, how: str) -> None:
    """Also where it was never seen open: what the folder below it holds is no word on what it has."""
    assert own_machine.taken
    home = Path(pwd.getpwnam(FAR).pw_dir)
    table = Path("/etc/fstab")
    before = table.read_text("utf-8") if table.exists() else ""
    scan = scanner(tmp_path)
    scan.scan()
    assert [*scan.cut] == []
    if how == "ecryptfs":
        (home.parent / ".ecryptfs" / FAR).mkdir(parents=True)
    elif how == "homed":
        home.with_name(f"{FAR}.homedir").mkdir()
    elif how == "fstab":
        table.write_text(f"{before}server:/export/{FAR}\t{home}\tnfs\tnoauto,user\t0\t0\n", "utf-8")
    else:
        volume = f'<volume user="{FAR}" fstype="fuse" path="gocryptfs#/crypt" mountpoint="/home/%(USER)" />\n'
        Path("/etc/security").mkdir(exist_ok=True)
        Path("/etc/security/pam_mount.conf.xml").write_text(f"<pam_mount>\n{volume}</pam_mount>\n", "ascii")
    try:
        assert kinds(scan.scan()) == {(NEAR, KEY, "near")}
        assert (FAR, str(home / ".ssh" / "authorized_keys")) in {(cut.username, cut.path) for cut in scan.cut}
        with far(tmp_path):
            assert kinds(scan.scan()) == {(NEAR, KEY, "near"), (FAR, KEY, "far")}
            assert FAR not in {cut.username for cut in scan.cut}
    finally:
        shutil.rmtree(home.parent / ".ecryptfs", ignore_errors=True)
        shutil.rmtree(f"{home}.homedir", ignore_errors=True)
        table.write_text(before, "utf-8")
        Path("/etc/security/pam_mount.conf.xml").unlink(missing_ok=True)
