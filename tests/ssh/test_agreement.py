"""What we say of a line is what a real sshd does with it: names of types, and thousands of lines made by chance."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyrack.ssh.authorized_keys import KeyLine, read
from keyrack.ssh.line_key import NAMES, SshdRules
from keyrack.ssh.public_key import read_canonical
from tests.login.debian_host import system_of
from tests.ssh.sshd_verdicts import KNOWS_DSA, Judge, Lines, judge, version_of

LONG = os.environ.get("KEYRACK_LONG") == "1"
COUNT = 10_000 if LONG else 300
BATCH_SIZE = 100  # lines in a file


HERE = SshdRules(version=version_of("ssh"))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """This machine's."""
    with judge(tmp_path_factory.mktemp("judge")) as found:
        yield found


def lets_in(line: KeyLine) -> bool:
    """What we say of it, for somebody who comes now and from here."""
    ended = line.ends_at is not None and line.ends_at < time.time()
    return line.problem is None and not line.authority and not ended


def agree(sshd: Judge, seed: int, count: int, rules: SshdRules = HERE) -> int:
    """Ask about lines made by chance; answers how many let in."""
    lines = Lines(seed)
    let_in = 0
    for _ in range(count // BATCH_SIZE):
        made = [lines.make() for _ in range(BATCH_SIZE)]
        accepted = sshd.accepted([line for line, _ in made], [key for _, key in made])
        found = read(b"\n".join(line for line, _ in made), rules)
        said = {line.line_number - 1 for line in found if lets_in(line)}
        wrong = [f"let in: {number in accepted}: {made[number]}" for number in sorted(accepted ^ said)]
        if wrong:
            pytest.fail("\n".join([f"seed {seed}", *wrong[:20]]), pytrace=False)
        let_in += len(accepted)
        for line in found:
            if line.line_number - 1 in accepted:
                key = made[line.line_number - 1][1]
                assert line.public_key == key
                assert line.type == key.split()[0]
    return let_in


@pytest.mark.timeout(3600)
def test_lines_made_by_chance_let_in_whom_sshd_lets_in(sshd: Judge) -> None:
    let_in = agree(sshd, 20261126, COUNT)
    assert COUNT // 5 < let_in < COUNT * 4 // 5, "lines that all are one thing show little"


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("release", ["bullseye", "trixie"])
def test_older_and_newer_releases_agree_too(release: str) -> None:
    root = system_of(release) if os.geteuid() == 0 else None
    if root is None:
        pytest.skip("this test starts another Debian's sshd: it needs root and scripts/hosts.sh")
    rules = SshdRules(version=version_of("chroot", str(root), "ssh"))
    folder = Path(
        subprocess.run(["mktemp", "-d", "-p", root / "root"], capture_output=True, check=True).stdout.decode().strip()
    )
    try:
        with judge(folder, root=root) as sshd:
            agree(sshd, 8410, COUNT, rules)
    finally:
        subprocess.run(["rm", "-r", folder], check=True)


def test_every_key_type_that_ssh_knows_is_known() -> None:
    """A name of a signature is a type to sshd: a line that begins with one lets in."""
    known = set(NAMES)
    for kind in ("key", "key-sig"):
        names = subprocess.run(["ssh", "-Q", kind], capture_output=True, check=True).stdout.decode().split()
        plain = {name for name in names if "-cert-" not in name}
        assert plain
        assert plain <= known


@pytest.mark.parametrize("name", ["rsa-sha2-256", "rsa-sha2-512", "ssh-rsa"])
def test_a_name_of_a_signature_is_a_type(sshd: Judge, name: str) -> None:
    line, key = next(
        made for made in iter(Lines(1).make, None) if made[0].startswith(b"rsa-sha2-512 ") and lets_in(read(made[0])[0])
    )
    line = line.replace(b"rsa-sha2-512", name.encode(), 1)
    assert sshd.accepted([line], [key]) == {0}
    (found,) = read(line)
    assert (found.type, found.problem, found.fingerprint) == ("ssh-rsa", None, read_canonical(key).fingerprint)


@pytest.mark.parametrize(
    ("settings", "rules"),
    [
        ("PubkeyAcceptedAlgorithms +ssh-dss\n", HERE._replace(accepted="ssh-*,ecdsa-*,rsa-sha2-*,sk-*,webauthn-*")),
        ("PubkeyAcceptedAlgorithms ssh-ed25519,rsa-sha2-512\n", HERE._replace(accepted="ssh-ed25519,rsa-sha2-512")),
        ("RequiredRSASize 3072\n", HERE._replace(smallest_rsa=3072)),
    ],
)
def test_the_types_that_an_sshd_accepts_decide_which_lines_let_in(
    tmp_path: Path, settings: str, rules: SshdRules
) -> None:
    if "ssh-dss" in settings and not KNOWS_DSA:
        pytest.skip("OpenSSH from 10.0 on has no DSA")
    with judge(tmp_path, settings=settings) as sshd:
        agree(sshd, 7, 200, rules)
