"""What a scan finds and what it reports of itself, on a host with real accounts and its real sshd."""

from __future__ import annotations

import errno
import json
import os
import pwd
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keyrack.agent.keys import key_file, seen_files
from keyrack.agent.keys import unmanaged_keys as finding
from keyrack.agent.keys.remove_keys import remove_keys
from keyrack.agent.keys.seen_files import SeenFiles
from keyrack.agent.keys.unmanaged_keys import Scanner
from keyrack.agent.sshd.login_check import LoginCheck
from keyrack.agent.sshd.settings import Sshd, SshdSilent
from keyrack.agent.sshd.settings_text import split_values
from keyrack.agent.state import StateFolder
from keyrack.agent.system import account_names, as_account, programs
from keyrack.protocol.host_document import KeyRemoval
from keyrack.protocol.report import AUTHORITY, COMMAND, KEY, UNREADABLE, ReportedKey
from keyrack.ssh.public_key import parse
from tests.agent.signed_documents import public_key
from tests.login.observed_host import accounts, set_home
from tests.login.private_sshd import Key, sshd_path, strict_folder
from tests.ports import free_port
from tests.ssh.sshd_verdicts import version_of
from tests.waiting import wait_until

SCAN_AND_MEASURE = """import sys
from keyrack.agent.keys.key_file import FileScan
from keyrack.ssh.line_key import USUAL_RULES
print(len(FileScan(sys.argv[1], USUAL_RULES, None).run()["rows"]))
print(next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
LOUD, QUIET, GROUP = "krloud", "krquiet", "krteam"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root sees other accounts' files")


@pytest.fixture
def homes() -> Iterator[dict[str, Path]]:
    """The homes of two accounts, each with a folder .ssh."""
    with accounts((LOUD, QUIET)):
        found = {}
        for name in (LOUD, QUIET):
            account = pwd.getpwnam(name)
            found[name] = Path(account.pw_dir)
            put(found[name] / ".ssh" / "authorized_keys", "")
        yield found


def put(path: Path, text: str) -> None:
    """Write a file as the owner of the home would."""
    home = path.parent.parent.stat()
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(text, "ascii")
    for one in (path.parent, path):
        os.chown(one, home.st_uid, home.st_gid)


def scanner(
    folder: Path, settings: str = "AuthorizedKeysFile .ssh/authorized_keys\n", seen: SeenFiles | None = None
) -> Scanner:
    """One for an sshd with these settings."""
    host_key = folder / "host_key"
    if not host_key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    config = folder / "config"
    config.write_text(f"HostKey {host_key}\n{settings}", "ascii")
    return Scanner(Sshd(str(config)), "/nonexistent", seen)


def of(found: list[ReportedKey], name: str) -> list[ReportedKey]:
    """Those of one account, in its usual file."""
    return [one for one in found if one.username == name and one.path.endswith("/.ssh/authorized_keys")]


@needs_root
def test_an_account_with_very_many_keys_hides_no_other(homes: dict[str, Path], tmp_path: Path) -> None:
    """Lines without end in one account's file push nothing of another out of a report; that is said."""
    put(homes[LOUD] / ".ssh" / "authorized_keys", "".join(f"{public_key()} junk\n" for _ in range(50)) * 60)
    second = homes[LOUD] / ".ssh" / "authorized_keys2"
    put(second, f"{public_key()} last\n" + f"ssh-ed25519 {'A' * 200}\n" * 20_000)
    put(homes[QUIET] / ".ssh" / "authorized_keys", f"{public_key()} quiet\n")
    scan = scanner(tmp_path)
    found = scan.scan()
    assert [one.comment for one in of(found, QUIET)] == ["quiet"]
    assert len(found) <= finding.MAX_FOUND
    assert len(json.dumps([one.to_json() for one in found])) < 900_000
    cut = {(one.username, one.path) for one in scan.cut}
    assert (LOUD, str(homes[LOUD] / ".ssh" / "authorized_keys")) in cut
    assert (QUIET, str(homes[QUIET] / ".ssh" / "authorized_keys")) not in cut
    assert "last" in {one.comment for one in found}
    assert (LOUD, str(second)) in cut


@needs_root
def test_a_report_is_shared(homes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "MAX_FOUND", 40)
    for name in homes:
        put(homes[name] / ".ssh" / "authorized_keys", "".join(f"{public_key()} {number}\n" for number in range(100)))
    scan = scanner(tmp_path)
    found = scan.scan()
    assert min(len(of(found, name)) for name in homes) >= 10
    assert {LOUD, QUIET} <= {one.username for one in scan.cut}


@needs_root
def test_a_key_in_a_file_that_everybody_may_change_is_not_in_force(homes: dict[str, Path], tmp_path: Path) -> None:
    """sshd takes no key of such a file (StrictModes), and the scan says so, as soon as a folder above it changes."""
    home = homes[QUIET]
    file = home / ".ssh" / "authorized_keys"
    put(file, f"{public_key()} quiet\n")
    scan = scanner(tmp_path)

    def said() -> tuple[bool, str]:
        (one,) = of(scan.scan(), QUIET)
        return one.in_force, one.problem

    assert said() == (True, "")
    for path, mode in ((file, 0o666), (home / ".ssh", 0o757), (home, 0o1777)):
        before = path.stat().st_mode
        path.chmod(mode)
        assert said() == (False, f"sshd does not take it (StrictModes): everybody may write to {path}")
        path.chmod(before)
        assert said() == (True, "")
    os.chown(file, 0, 0)
    file.chmod(0o644)
    assert said() == (True, "")
    os.chown(file, homes[LOUD].stat().st_uid, 0)
    assert said() == (False, f"sshd does not take it (StrictModes): {file} is another account's")
    assert of(scanner(tmp_path, "StrictModes no\n").scan(), QUIET)[0].in_force


@needs_root
def test_an_account_whose_settings_sshd_cannot_say_hides_no_other(homes: dict[str, Path], tmp_path: Path) -> None:
    """sshd says nothing of that account, and all are looked at."""
    for name in (LOUD, QUIET):
        put(homes[name] / ".ssh" / "authorized_keys", f"{public_key()} {name}\n")
    rule = f"Match User {LOUD}\n  PubkeyAuthentication no\n  AuthenticationMethods publickey\n"
    found = scanner(
        tmp_path, f"AuthorizedKeysFile .ssh/authorized_keys\n{rule}  AuthorizedKeysFile .ssh/other\n"
    ).scan()
    assert [one.comment for name in (LOUD, QUIET) for one in of(found, name)] == [LOUD, QUIET]


@pytest.mark.parametrize("line", ['"', "a", "ssh-rsa AAAA"])
def test_a_file_of_very_many_lines_takes_little_memory(tmp_path: Path, line: str) -> None:
    """The agent's unit has 128 MB, and whoever owns a file of keys may fill it with anything."""
    path = tmp_path / "authorized_keys"
    path.write_text(f"{line}\n" * (key_file.LARGEST // (len(line) + 1)), "ascii")
    ended = subprocess.run(
        [sys.executable, "-c", SCAN_AND_MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    rows, megabytes = map(int, ended.stdout.split())
    assert rows == key_file.MAX_UNREADABLE
    assert megabytes < 64


@needs_root
def test_a_key_in_a_home_of_two_accounts_is_taken_out_as_the_one_that_may(
    homes: dict[str, Path], tmp_path: Path
) -> None:
    """The other one only reads the file, and is named first."""
    path, rogue = homes[QUIET] / ".ssh" / "authorized_keys", public_key()
    put(path, f"{rogue} rogue\n# stays\n")
    for one in (homes[QUIET], path.parent):
        one.chmod(0o755)
    set_home(LOUD, homes[QUIET])
    try:
        found = [one for one in scanner(tmp_path).scan() if one.path == str(path)]
        assert [one.username for one in found] == [LOUD, QUIET]
        assert remove_keys([KeyRemoval(str(path), parse(rogue).fingerprint)], found) == []
        assert path.read_text("ascii") == "# stays\n"
    finally:
        set_home(LOUD, homes[LOUD])


@needs_root
@pytest.mark.skipif(version_of("ssh") < (10, 0), reason="files are named by patterns since OpenSSH 10.0")
def test_a_file_that_only_a_pattern_names_is_reported_as_not_scanned(homes: dict[str, Path], tmp_path: Path) -> None:
    put(homes[QUIET] / ".ssh" / "more.keys", f"{public_key()} quiet\n")
    scan = scanner(tmp_path, "AuthorizedKeysFile .ssh/authorized_keys .ssh/*.keys\n")
    scan.scan()
    assert [cut.why for cut in scan.cut if cut.path == ".ssh/*.keys"] == [
        "AuthorizedKeysFile names files by a pattern, and which they are is not looked for"
    ]
    scan = scanner(tmp_path)
    scan.scan()
    assert not [cut for cut in scan.cut if "pattern" in cut.why]


@needs_root
def test_a_key_file_that_cannot_be_read_is_not_reported_as_empty(homes: dict[str, Path], tmp_path: Path) -> None:
    """A file that cannot be read is said to be that; so is one that was read before."""
    file = homes[QUIET] / ".ssh" / "authorized_keys"
    put(file, f"{public_key()} quiet\n")
    scan = scanner(tmp_path)
    assert [one.comment for one in of(scan.scan(), QUIET)] == ["quiet"]
    for path in (file, file.parent, homes[QUIET]):
        mode = path.stat().st_mode
        path.chmod(0)
        (one,) = of(scan.scan(), QUIET)
        assert (one.kind, one.problem, one.line) == (UNREADABLE, "Permission denied", 0)
        assert (QUIET, str(file)) in {(cut.username, cut.path) for cut in scan.cut}
        path.chmod(mode & 0o777)
    assert [one.comment for one in of(scan.scan(), QUIET)] == ["quiet"]
    away = homes[QUIET].with_name("kraway")
    homes[QUIET].rename(away)  # as one that is not mounted now
    assert [one.comment for one in of(scan.scan(), QUIET)] == ["quiet"]
    assert (QUIET, str(file)) in {(cut.username, cut.path) for cut in scan.cut}
    away.rename(homes[QUIET])
    assert [one.comment for one in of(scan.scan(), QUIET)] == ["quiet"]
    file.unlink()
    assert of(scan.scan(), QUIET) == []
    assert QUIET not in {cut.username for cut in scan.cut}


@needs_root
def test_a_home_that_was_away_before_a_restart_of_the_agent_is_not_reported_as_empty_after_it(
    homes: dict[str, Path], tmp_path: Path
) -> None:
    """A home that is not there, one whose file system is not mounted, an account whose directory does not answer."""
    state = StateFolder.open(str(tmp_path / "agent"), create=True)
    file = homes[QUIET] / ".ssh" / "authorized_keys"

    def cut_after_a_restart() -> bool:
        """Whether an agent that has just started says that it did not see what is in the file."""
        scan = scanner(tmp_path, seen=SeenFiles(state))
        assert of(scan.scan(), QUIET) == []
        return (QUIET, str(file)) in {(cut.username, cut.path) for cut in scan.cut}

    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", homes[QUIET]], check=True)
    try:
        os.chown(homes[QUIET], pwd.getpwnam(QUIET).pw_uid, -1)
        put(file, f"{public_key()} quiet\n")
        assert of(scanner(tmp_path, seen=SeenFiles(state)).scan(), QUIET)
    finally:
        subprocess.run(["umount", homes[QUIET]], check=True)
    file.unlink()
    assert cut_after_a_restart(), "an empty folder is where the home was mounted"
    away = homes[QUIET].with_name("kraway")
    homes[QUIET].rename(away)
    assert cut_after_a_restart()
    assert cut_after_a_restart(), "it is remembered for as long as it lasts"
    away.rename(homes[QUIET])
    put(file, f"{public_key()} quiet\n")
    assert of(scanner(tmp_path, seen=SeenFiles(state)).scan(), QUIET)
    file.unlink()
    assert not cut_after_a_restart(), "a key that was taken out is gone"


def test_an_account_that_is_no_longer_known_counts_as_away_for_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory of accounts that is away at a restart answers as one that has no such account."""
    state = StateFolder.open(str(tmp_path / "agent"), create=True)
    SeenFiles(state).keep({("krelsewhere", "/home/krelsewhere/.ssh/authorized_keys"): "/home"})
    monkeypatch.setattr(account_names, "directories", lambda database: ["sss"])
    scan = scanner(tmp_path, seen=SeenFiles(state))
    scan.scan()
    assert ("krelsewhere", "") in {(cut.username, cut.path) for cut in scan.cut}
    monkeypatch.setattr(seen_files, "AWAY_SECONDS", 0.0)
    scan = scanner(tmp_path, seen=SeenFiles(state))
    scan.scan()
    assert "krelsewhere" not in {cut.username for cut in scan.cut}


@needs_root
def test_an_sshd_that_does_not_answer_for_an_account_is_asked_again(
    homes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where memory is short and it is ended: until then each file of the account may count; no login is judged."""
    put(homes[QUIET] / ".ssh" / "odd", f"{public_key()} odd\n")
    silent, program, find = tmp_path / "silent", tmp_path / "sshd", programs.find
    ends = f'case "$*" in *user=*) [ ! -e {silent} ] || kill -9 $$ ;; esac'
    program.write_text(f'#!/bin/sh\n{ends}\nexec {find("sshd")} "$@"\n', "ascii")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "find", lambda name: str(program) if name == "sshd" else find(name))
    scan = scanner(tmp_path, f"Match User {QUIET}\n  AuthorizedKeysFile .ssh/odd\n")
    check = LoginCheck(Sshd(str(tmp_path / "config")))

    def in_force() -> list[bool]:
        return [one.in_force for one in scan.scan() if one.comment == "odd"]

    silent.touch()
    assert in_force() == [True]
    with pytest.raises(SshdSilent):
        check.effective(QUIET)
    silent.unlink()
    assert in_force() == [True]
    assert check.effective(QUIET).one("authorizedkeysfile") == ".ssh/odd"


@needs_root
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ELOOP])
def test_every_error_but_absence_is_reported(
    homes: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As file systems of a network give them when their server is away."""
    file = homes[QUIET] / ".ssh" / "authorized_keys"
    put(file, f"{public_key()} quiet\n")
    scan, stat = scanner(tmp_path), os.stat
    scan.scan()

    def failing(path: Any, **more: Any) -> os.stat_result:
        if path == str(file):
            raise OSError(number, os.strerror(number), path)
        return stat(path, **more)

    monkeypatch.setattr(os, "stat", failing)
    (one,) = of(scan.scan(), QUIET)
    assert (one.kind, one.problem) == (UNREADABLE, os.strerror(number))
    assert (QUIET, str(file)) in {(cut.username, cut.path) for cut in scan.cut}
    monkeypatch.undo()
    assert [one.comment for one in of(scan.scan(), QUIET)] == ["quiet"]


@needs_root
def test_entering_or_leaving_a_group_changes_at_once_which_keys_are_in_force(
    homes: dict[str, Path], tmp_path: Path
) -> None:
    """What sshd's rules ask of groups is asked anew when somebody enters or leaves one."""
    for name in (LOUD, QUIET):
        put(homes[name] / ".ssh" / "of_team", f"{public_key()} {name}\n")
    subprocess.run(["groupadd", "-f", GROUP], check=True)
    try:
        rule = f"AuthorizedKeysFile none\nMatch Group {GROUP},!{LOUD}\n"
        scan = scanner(tmp_path, f"{rule}    AuthorizedKeysFile .ssh/of_team\n")
        # Each account is in the group of its own name, which is none of the rule's.
        for command, quiet in (("-a", True), ("-d", False)):
            subprocess.run(["gpasswd", command, QUIET, GROUP], check=True, capture_output=True)
            assert in_force(scan) == ({QUIET} if quiet else set())
    finally:
        subprocess.run(["groupdel", "-f", GROUP], check=False, capture_output=True)


@needs_root
def test_a_primary_group_and_a_groups_name_decide_at_once(homes: dict[str, Path], tmp_path: Path) -> None:
    put(homes[QUIET] / ".ssh" / "of_team", f"{public_key()} {QUIET}\n")
    subprocess.run(["groupadd", "-f", GROUP], check=True)
    try:
        rule = f"AuthorizedKeysFile none\nMatch Group {GROUP}\n"
        scan = scanner(tmp_path, f"{rule}    AuthorizedKeysFile .ssh/of_team\n")
        assert in_force(scan) == set()
        for command, quiet in (
            (("usermod", "-g", GROUP, QUIET), True),
            (("groupmod", "-n", f"{GROUP}2", GROUP), False),
            (("groupmod", "-n", GROUP, f"{GROUP}2"), True),
            (("usermod", "-g", "users", QUIET), False),
        ):
            subprocess.run(command, check=True, capture_output=True)
            assert in_force(scan) == ({QUIET} if quiet else set()), command
    finally:
        for name in (GROUP, f"{GROUP}2"):
            subprocess.run(["groupdel", "-f", name], check=False, capture_output=True)


def in_force(scan: Scanner) -> set[str]:
    """The accounts that a key of the team opens."""
    return {one.username for one in scan.scan() if one.path.endswith("/of_team") and one.in_force}


@needs_root
def test_every_kind_of_line_is_reported_as_what_it_is(homes: dict[str, Path], tmp_path: Path) -> None:
    rsa = Key.make(tmp_path / "rsa", "rsa", 2048).public
    keys = [public_key() for _ in range(6)]
    soon = time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() - 5))
    lines = [
        f"rsa-sha2-512 {rsa.split()[1]} signature",
        f'expiry-time="20990101utc" {keys[0]} end',
        f'expiry-time="{soon}" {keys[1]} ended',
        f'command="cert-authority" {keys[2]} no-authority',
        f"CERT-AUTHORITY {keys[3]} authority",
        f'permitopen="a" {keys[4]} no-port',
        f'from="10.0.0.0/8",from="*" {keys[5]} twice',
        "ssh-ed448 AAAA of another kind",
        'command="x',
        "# a comment",
        "",
        *["junk"] * 30,
    ]
    put(homes[QUIET] / ".ssh" / "authorized_keys", "\n".join(lines))
    found = of(scanner(tmp_path).scan(), QUIET)
    by_comment = {one.comment: (one.kind, one.in_force) for one in found if one.fingerprint}
    assert by_comment == {
        "signature": (KEY, True),
        "end": (KEY, True),
        "ended": (KEY, False),
        "no-authority": (KEY, True),
        "authority": (AUTHORITY, True),
        "no-port": (KEY, False),
        "twice": (KEY, False),
    }
    signature = next(one for one in found if one.comment == "signature")
    assert (signature.fingerprint, signature.key) == (parse(rsa).fingerprint, rsa)
    unread = sorted(one.line for one in found if one.kind == UNREADABLE)
    assert unread[:3] == [8, 9, 12]
    assert len(unread) == 20
    assert any("so are 12 lines after it" in one.problem for one in found)


@needs_root
def test_only_keys_of_types_and_sizes_that_sshd_accepts_are_in_force(homes: dict[str, Path], tmp_path: Path) -> None:
    rsa = Key.make(tmp_path / "rsa", "rsa", 2048).public
    put(homes[QUIET] / ".ssh" / "authorized_keys", f"{rsa} rsa\n{public_key()} small\n")
    scan = scanner(tmp_path)
    assert {one.comment for one in of(scan.scan(), QUIET) if one.in_force} == {"rsa", "small"}
    for setting in ("RequiredRSASize 3072", "PubkeyAcceptedAlgorithms ssh-ed25519"):
        scanner(tmp_path, f"AuthorizedKeysFile .ssh/authorized_keys\n{setting}\n")
        assert {one.comment for one in of(scan.scan(), QUIET) if one.in_force} == {"small"}


# As a directory of accounts does that lists nobody and answers for every name: SSSD's default.
UNLISTED = """
#define _GNU_SOURCE
#include <pwd.h>
struct passwd *getpwent(void) { return 0; }
"""


@needs_root
def test_accounts_that_no_list_has_are_scanned(homes: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "unlisted.c").write_text(UNLISTED, "ascii")
    library = tmp_path / "unlisted.so"
    if subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "unlisted.c"], check=False).returncode:
        pytest.skip("this test compiles a small library: it needs cc")
    put(homes[QUIET] / ".ssh" / "authorized_keys", f"{public_key()} quiet\n")
    scanner(tmp_path)
    code = (
        "import json, pwd, sys; from keyrack.agent.keys.unmanaged_keys import Scanner\n"
        "from keyrack.agent.sshd.settings import Sshd\n"
        "assert not pwd.getpwall()\n"
        "print(json.dumps([one.comment for one in Scanner(Sshd(sys.argv[1]), '/none').scan(names=sys.argv[2:])]))"
    )
    home, domain = homes[QUIET], homes[QUIET].with_name("krcorp.example")
    home.chmod(0o755)

    def found_in(place: Path, *names: str) -> list[str]:
        set_home(QUIET, place)
        given = [sys.executable, "-c", code, str(tmp_path / "config"), *names]
        preloaded = {**os.environ, "LD_PRELOAD": str(library)}
        return list(json.loads(subprocess.run(given, env=preloaded, capture_output=True, check=True).stdout))

    assert found_in(home) == ["quiet"]
    domain.mkdir()
    home.rename(domain / QUIET)  # as SSSD and winbind have them, in a folder of their domain
    assert found_in(domain / QUIET) == ["quiet"]
    other = home.with_name(".krother")  # where nobody looks for homes
    other.mkdir()
    try:
        (domain / QUIET).rename(other / QUIET)
        domain.rmdir()
        home.symlink_to(other / QUIET)
        assert found_in(home) == ["quiet"], "a home may be a link"
        home.unlink()
        assert found_in(other / QUIET) == []
        assert found_in(other / QUIET, QUIET) == ["quiet"], "its name is known"
        subprocess.run(["usermod", "-aG", "users", QUIET], check=True)
        assert found_in(other / QUIET) == ["quiet"], "a group of this host names it"
        (other / QUIET).rename(home)
        set_home(QUIET, home)
    finally:
        other.rmdir()


@needs_root
@pytest.mark.parametrize(
    ("settings", "file"),
    [
        ("AuthorizedKeysFile {folder}/%u", "{name}"),
        ("AuthorizedKeysFile none\nMatch User *,!root\nAuthorizedKeysFile {folder}/%u.pub", "{name}.pub"),
        ("AuthorizedKeysFile {folder}/of-%U-%U/keys", "of-{number}-{number}/keys"),
        ("AuthorizedKeysFile {folder}/keys\nMatch User *,!{name}\nAuthorizedKeysFile none", "keys-of-nobody"),
        ("AuthorizedKeysFile {folder}/k\nDenyUsers root !{name}", "keys-of-nobody"),
    ],
)
def test_accounts_without_a_home_that_only_settings_or_files_name(
    homes: dict[str, Path], tmp_path: Path, settings: str, file: str
) -> None:
    """As a directory has them: no list has the account, and its home is made by its first login, or never."""
    (tmp_path / "unlisted.c").write_text(UNLISTED, "ascii")
    library = tmp_path / "unlisted.so"
    if subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "unlisted.c"], check=False).returncode:
        pytest.skip("this test compiles a small library: it needs cc")
    account = pwd.getpwnam(QUIET)
    set_home(QUIET, Path("/nonexistent/krquiet"))
    keys = tmp_path / "folder"
    place = keys / file.format(name=QUIET, number=account.pw_uid)
    place.parent.mkdir(parents=True)
    place.write_text(f"{public_key()} quiet\n", "ascii")
    (keys / "not an account").mkdir()
    (keys / "of-99999999999-1").mkdir()
    homes[QUIET].rename(homes[QUIET].with_name(".krquiet"))
    try:
        scanner(tmp_path, settings.format(folder=keys, name=QUIET) + "\n")
        code = (
            "import json, os, pwd, sys; from keyrack.agent.system import account_names\n"
            "from keyrack.agent.sshd.settings import Sshd\n"
            "lines = Sshd(sys.argv[1]).lines()\n"
            "print(json.dumps([one.name for one in account_names.find((), lines).accounts]))"
        )
        given = [sys.executable, "-c", code, str(tmp_path / "config")]
        preloaded = {**os.environ, "LD_PRELOAD": str(library)}
        answer = subprocess.run(given, env=preloaded, capture_output=True, check=True)
        assert QUIET in json.loads(answer.stdout)
    finally:
        homes[QUIET].with_name(".krquiet").rename(homes[QUIET])
        set_home(QUIET, homes[QUIET])


@needs_root
def test_a_home_with_an_unknown_owner_is_not_reported_as_empty(homes: dict[str, Path], tmp_path: Path) -> None:
    """The directory of accounts may be away: what was found there is not gone."""
    home = homes[LOUD]
    os.chown(home, 4_000_001, 4_000_001)
    second = home.with_name("krsecond")
    second.mkdir()
    try:
        os.chown(second, 4_000_001, 4_000_001)
        subprocess.run(["userdel", "-f", LOUD], check=True, capture_output=True)
        scan = scanner(tmp_path)
        scan.scan()
        unseen = {cut.path for cut in scan.cut if not cut.username}
        assert {f"{path}/.ssh/authorized_keys" for path in (home, second)} <= unseen
    finally:
        second.rmdir()
        subprocess.run(["rm", "-r", home], check=True)


@needs_root
def test_quotes_are_read_as_sshd_reads_them(homes: dict[str, Path], tmp_path: Path) -> None:
    keys = tmp_path / "my keys"
    keys.mkdir()
    (keys / QUIET).write_text(f"{public_key()} quoted\n", "ascii")
    for folder in (keys, *keys.parents):
        folder.chmod(folder.stat().st_mode | 0o055)
    for written in (f'"{tmp_path}/my keys"/%u', f'"{tmp_path}/my keys/%u"', f"'{tmp_path}/my keys/%u'"):
        found = scanner(tmp_path, f'StrictModes no\nAuthorizedKeysFile {written} .ssh/authorized_keys "/etc"\n').scan()
        assert [one.comment for one in found if one.username == QUIET and one.in_force] == ["quoted"]
        assert not [one for one in found if one.kind == UNREADABLE and one.in_force]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"/etc/ssh/keys"/%u', ["/etc/ssh/keys/%u"]),
        ('a"b c"d e', ["ab cd", "e"]),
        ("'a \" b' \\\"c", ['a " b', '"c']),
        ("a\\ b a\\b # no", ["a b", "a\\b"]),
        ("a#b #c", ["a#b"]),
        ("", []),
    ],
)
def test_values_of_a_setting_are_split_as_sshd_does(text: str, words: list[str]) -> None:
    assert list(split_values(text)) == words


@needs_root
def test_an_agent_without_root_scans_its_own_account(homes: dict[str, Path], tmp_path: Path) -> None:
    """An sshd of one's own lets in nobody else, so nobody else's files are missed."""
    put(homes[QUIET] / ".ssh" / "authorized_keys", f"{public_key()} quiet\n")
    scan = scanner(tmp_path)
    account = pwd.getpwnam(QUIET)
    for path in (tmp_path / "host_key", tmp_path / "config"):
        os.chown(path, account.pw_uid, account.pw_gid)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o055)

    def work() -> bytes:
        found = scan.scan()
        return json.dumps([[(one.username, one.kind, one.comment) for one in found], scan.cut]).encode()

    assert json.loads(as_account.run(account, work, seconds=30)) == [[[QUIET, KEY, "quiet"]], []]


@needs_root
@pytest.mark.parametrize(
    "rule", ["Address 192.0.2.0/24", "LocalPort 2222", "LocalAddress 192.0.2.1", "Host *.example.org"]
)
def test_a_key_that_a_rule_allows_from_some_addresses_alone_is_in_force(
    homes: dict[str, Path], tmp_path: Path, rule: str
) -> None:
    """sshd is asked as somebody from this machine; a rule for others lets them in all the same."""
    put(homes[QUIET] / ".elsewhere" / "keys", f"{public_key()} elsewhere\n")
    put(homes[QUIET] / ".ssh" / "authorized_keys", f"{public_key()} here\n")
    rules = f"Match {rule}\nAuthorizedKeysFile .elsewhere/keys\nAuthorizedKeysCommand /bin/names %u\n"
    scan = scanner(tmp_path, f"Port 2022\nAuthorizedKeysFile .ssh/authorized_keys\n{rules}")
    found = scan.scan()
    assert {one.comment for one in found if one.username == QUIET and one.in_force} >= {"elsewhere", "here"}
    assert "/bin/names %u" in {one.path for one in found if one.kind == COMMAND}


@needs_root
def test_a_rule_goes_on_after_a_file_included_below_it(homes: dict[str, Path], tmp_path: Path) -> None:
    """And what is included there counts only where the rule does, however its pattern and its keywords are spelled."""
    for name in ("below", "behind"):
        put(homes[QUIET] / ".elsewhere" / name, f"{public_key()} {name}\n")
    for number in "123":
        (tmp_path / f"below{number}.conf").write_text("Match all\n\tAuthorizedKeysFile .elsewhere/below\n", "ascii")
    for pattern in ("below[^23].conf", "below\\1.conf", "below?.conf"):
        rules = f'"Match" Address 192.0.2.0/24\nInclude {tmp_path}/{pattern}\n"AuthorizedKeysFile" .elsewhere/behind\n'
        scan = scanner(tmp_path, f"AuthorizedKeysFile none\n{rules}")
        found = {one.comment for one in scan.scan() if one.username == QUIET and one.in_force}
        asked = ["sshd", "-T", "-f", str(tmp_path / "config"), "-C", f"user={QUIET},host=x,addr=192.0.2.1"]
        said = subprocess.run(asked, capture_output=True, text=True, check=True, executable="/usr/sbin/sshd").stdout
        assert "authorizedkeysfile .elsewhere/behind" in said or "authorizedkeysfile .elsewhere/below" in said
        assert found == {"below", "behind"}, pattern


@needs_root
@pytest.mark.parametrize("included", [False, True])
def test_settings_too_large_to_be_read_whole_are_reported(
    homes: dict[str, Path], tmp_path: Path, included: bool
) -> None:
    """sshd reads the whole file, and opens by it."""
    put(homes[QUIET] / ".elsewhere" / "keys", f"{public_key()} elsewhere\n")
    rules = "AuthorizedKeysFile none\n" + "# a comment\n" * 90_000
    rules += f"Match User {QUIET}\nAuthorizedKeysFile .elsewhere/keys\n"
    large = tmp_path / "config"
    if included:
        large = tmp_path / "large.conf"
        large.write_text(rules, "ascii")
        rules = f"Include {large}\n"
    scan = scanner(tmp_path, rules)
    scan.scan()
    assert {cut.path: cut.why for cut in scan.cut if "1 MiB" in cut.why}.keys() == {str(large)}
    large.write_text(f"HostKey {tmp_path / 'host_key'}\n", "ascii")
    scan.scan()
    assert not [cut for cut in scan.cut if "1 MiB" in cut.why]


@needs_root
def test_a_key_file_named_like_an_option_is_scanned(homes: dict[str, Path]) -> None:
    """sshd writes a title over its command line, which does not tell whether -4 is a file or an option."""
    put(homes[QUIET] / "folder" / "unused", "")
    (homes[QUIET] / "-4").write_text(f"{public_key()} dashed\n", "ascii")
    os.chown(homes[QUIET] / "-4", pwd.getpwnam(QUIET).pw_uid, pwd.getpwnam(QUIET).pw_gid)
    port = free_port()
    with strict_folder() as folder:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
        config = folder / "sshd_config"
        config.write_text(f"HostKey {folder / 'key'}\nListenAddress 127.0.0.1\nPidFile none\n", "ascii")
        given = [str(sshd_path()), "-De", "-f", str(config), "-p", str(port), "-o", "AuthorizedKeysFile=z -4"]
        running = subprocess.Popen(given, stderr=subprocess.DEVNULL)
        try:
            sshd = Sshd(str(config))
            wait_until(sshd.greets, "an sshd on a port of its command line")
            found = Scanner(sshd, "/nonexistent").scan()
            assert [one.in_force for one in found if one.comment == "dashed"] == [True]
        finally:
            running.terminate()
            running.wait(30)
