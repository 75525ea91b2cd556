"""A key is taken out of a file while others write to it: nothing of theirs is lost, nothing about the file changes."""

from __future__ import annotations

import base64
import contextlib
import os
import stat
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyrack.agent.keys.remove_keys import remove_keys, rewrite
from keyrack.agent.system.as_account import AccountProblem
from keyrack.protocol.host_document import KeyRemoval
from keyrack.protocol.report import KEY, ReportedKey
from keyrack.ssh import authorized_keys
from keyrack.ssh.line_key import SshdRules
from keyrack.ssh.public_key import parse
from tests.agent.signed_documents import public_key
from tests.login.private_sshd import USERNAME, strict_folder
from tests.waiting import wait_until

APPENDER = """
import sys
for number in range(int(sys.argv[2])):
    with open(sys.argv[1], "a") as file:
        file.write(f"# line {number}\\n")
print("done")
"""
# As ssh-copy-id's and an editor's ways: another file takes the name.
REPLACER = """
import os, sys
for number in range(int(sys.argv[2])):
    try:
        text = open(sys.argv[1]).read()
    except FileNotFoundError:
        continue
    with open(sys.argv[1] + ".new", "w") as file:
        file.write(text)
        file.write(f"# line {number}\\n")
    os.rename(sys.argv[1] + ".new", sys.argv[1])
print("done")
"""
# A program that the system lets wait between opening the file and writing to it.
SLOW_APPENDER = """
import sys
with open(sys.argv[1], "a") as file:
    print("open", flush=True)
    sys.stdin.readline()
    file.write("# a line\\n")
"""
COUNT = 3000


@pytest.mark.parametrize("lines_before", [0, 500])
def test_a_line_that_is_appended_meanwhile_stays(tmp_path: Path, lines_before: int) -> None:
    path = tmp_path / "authorized_keys"
    keys = [public_key() for _ in range(12)]
    path.write_text("".join(f"# before {number}\n" for number in range(lines_before)), "ascii")
    with path.open("a", encoding="ascii") as file:
        file.write("".join(f"{key} rogue\n" for key in keys))
    with subprocess.Popen([sys.executable, "-c", APPENDER, str(path), str(COUNT)], stdout=subprocess.PIPE):
        for key in keys:
            with contextlib.suppress(AccountProblem):  # it may give up while somebody goes on writing
                rewrite(str(path), parse(key).fingerprint)
    for key in keys:
        rewrite(str(path), parse(key).fingerprint)
    text = path.read_text("ascii").splitlines()
    missing = {f"# line {number}" for number in range(COUNT)} - set(text)
    assert not missing, f"{len(missing)} lines are lost"
    assert len(text) == COUNT + lines_before
    assert os.listdir(tmp_path) == ["authorized_keys"]


def test_a_program_that_had_the_key_file_open_before_is_waited_for(tmp_path: Path) -> None:
    path, key = tmp_path / "authorized_keys", public_key()
    path.write_text(f"{key} rogue\n# before\n", "ascii")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_APPENDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as appender:
        assert appender.stdout is not None
        appender.stdout.readline()
        opened = path.stat().st_ino
        with ThreadPoolExecutor(1) as pool:
            removed = pool.submit(rewrite, str(path), parse(key).fingerprint)
            wait_until(lambda: path.stat().st_ino != opened, "the new file")
            time.sleep(0.3)  # longer than one check would take
            appender.communicate(b"go on\n")
            removed.result(60)
    assert path.read_text("ascii") == "# before\n# a line\n"
    assert os.listdir(tmp_path) == ["authorized_keys"]


def test_a_program_that_keeps_the_key_file_open_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    path, key = tmp_path / "authorized_keys", public_key()
    path.write_text(f"{key} rogue\n# before\n", "ascii")
    with path.open("a", encoding="ascii"):
        rewrite(str(path), parse(key).fingerprint)
    assert path.read_text("ascii") == "# before\n"


def test_a_file_that_takes_its_place_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "authorized_keys"
    keys = [public_key() for _ in range(5)]
    path.write_text("".join(f"{key} rogue\n" for key in keys), "ascii")
    with subprocess.Popen([sys.executable, "-c", REPLACER, str(path), "300"], stdout=subprocess.PIPE):
        for key in keys:
            with contextlib.suppress(AccountProblem):  # it may give up while somebody goes on writing
                rewrite(str(path), parse(key).fingerprint)
    for key in keys:
        rewrite(str(path), parse(key).fingerprint)
    text = path.read_text("ascii")
    assert not any(key in text for key in keys)
    missing = [number for number in range(300) if f"# line {number}\n" not in text]
    # Nobody can lock such a file. Who reads it in the microseconds in which two files change places, and writes what
    # he read over the newer one, loses a line that he himself did not see.
    assert len(missing) <= 1, missing


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_owner_mode_and_other_bytes_stay(tmp_path: Path) -> None:
    path = tmp_path / "authorized_keys"
    key = public_key()
    path.write_bytes(b"\xff\r\n# a\n" + key.encode() + b" rogue\n\n\0no end")
    os.chown(path, 65534, 12)
    path.chmod(0o604)
    rewrite(str(path), parse(key).fingerprint)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (65534, 12, 0o604)
    assert path.read_bytes() == b"\xff\r\n# a\n\n\0no end"
    before = status.st_ino
    rewrite(str(path), parse(key).fingerprint)
    assert path.stat().st_ino == before


def test_the_line_before_the_last_one_keeps_its_end(tmp_path: Path) -> None:
    """So what ssh-copy-id, or `echo … >>`, appends next is a line, and no comment of another key."""
    path = tmp_path / "authorized_keys"
    stays, goes, comes = (public_key() for _ in range(3))
    path.write_text(f"{stays} stays\n{goes} goes", "ascii")
    rewrite(str(path), parse(goes).fingerprint)
    with path.open("a", encoding="ascii") as file:
        file.write(f"{comes} comes\n")
    assert path.read_text("ascii") == f"{stays} stays\n{comes} comes\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can name an account that is not its own")
def test_rights_of_single_accounts_and_attributes_stay(tmp_path: Path) -> None:
    path = tmp_path / "authorized_keys"
    key = public_key()
    path.write_text(f"{key} rogue\n# stays\n", "ascii")
    path.chmod(0o600)
    # Read for account 65534 alone (acl(5)): owner, account, group, mask, others.
    entries = [(1, 6, -1), (2, 4, 65534), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
    rights = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, "system.posix_acl_access", rights)
        os.setxattr(path, "user.note", b"hers")
    except OSError:
        pytest.skip("this file system has no such attributes")
    rewrite(str(path), parse(key).fingerprint)
    assert path.read_text("ascii") == "# stays\n"
    assert os.getxattr(path, "system.posix_acl_access") == rights
    assert os.getxattr(path, "user.note") == b"hers"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can do so")
@pytest.mark.parametrize(("flag", "why"), [("i", "immutable"), ("a", "append-only")])
def test_an_immutable_key_file_stays_and_is_reported(flag: str, why: str) -> None:
    key = public_key()
    with strict_folder() as folder:
        path = folder / "authorized_keys"
        path.write_text(f"{key} stays\n", "ascii")
        if subprocess.run(["chattr", f"+{flag}", str(path)], check=False, capture_output=True).returncode:
            pytest.skip("this file system has no such flags")
        try:
            found = ReportedKey("root", str(path), KEY, fingerprint=parse(key).fingerprint)
            (problem,) = remove_keys([KeyRemoval(str(path), found.fingerprint)], [found])
            assert "could not be taken out" in problem
            assert problem.endswith(f"Operation not permitted; {path} is {why} (chattr -{flag} {path})")
            assert path.read_text("ascii") == f"{key} stays\n"
            assert os.listdir(folder) == ["authorized_keys"]
        finally:
            subprocess.run(["chattr", f"-{flag}", str(path)], check=True)


def test_a_pipe_in_the_place_of_a_key_file_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Exception, match="regular file"):
        rewrite(str(tmp_path / "pipe"), "SHA256:x")


def test_a_key_of_a_type_that_only_this_sshd_knows_is_taken_out() -> None:
    name = b"ssh-later@example.org"
    blob = len(name).to_bytes(4, "big") + name + bytes(40)
    line = f"{name.decode()} {base64.b64encode(blob).decode()}"
    rules = SshdRules(accepted=f"ssh-ed25519,{name.decode()}")
    with strict_folder() as folder:
        path = folder / "authorized_keys"
        path.write_text(f"# first\n{line} later\n", "ascii")
        (listed,) = authorized_keys.read(path.read_bytes(), rules)
        assert listed.fingerprint
        found = ReportedKey(
            USERNAME, str(path), KEY, 2, listed.type, listed.fingerprint, listed.public_key, in_force=True
        )
        assert remove_keys([KeyRemoval(str(path), listed.fingerprint)], [found], rules) == []
        assert path.read_text("ascii") == "# first\n"
