"""What `sshd -T` answers is read in every version's spelling, and what is no such answer is not taken for one."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from keyrack.agent import doctor
from keyrack.agent.keys.unmanaged_keys import rules
from keyrack.agent.sshd import settings
from keyrack.agent.sshd.running import UNKNOWN, RunningSshd
from keyrack.agent.sshd.settings import Effective, Sshd, SshdProblem
from keyrack.agent.state import Enrolment
from keyrack.agent.system import programs
from keyrack.ssh import authorized_keys, wire
from tests.login.private_sshd import sshd_path

OLD = "authorizedkeysfile .ssh/authorized_keys\npubkeyauthentication yes\npermitrootlogin without-password\n"
# Of OpenSSH 10.6.
NEW = "AuthorizedKeysFile .ssh/authorized_keys\nPubkeyAuthentication yes\nPermitRootLogin prohibit-password\n"


@pytest.mark.parametrize("answer", [OLD, NEW])
def test_keywords_in_any_case(answer: str) -> None:
    effective = Effective(answer)
    assert effective.one("PermitRootLogin") == "prohibit-password"
    assert effective.patterns("authorizedkeysfile") == (".ssh/authorized_keys",)


@pytest.mark.parametrize("answer", ["", "usage: sshd\n", "{}", "PubkeyAuthentication yes\n"])
def test_an_answer_of_sshd_without_settings_is_refused(answer: str) -> None:
    with pytest.raises(SshdProblem, match="cannot read"):
        Effective(answer)


def test_a_key_of_a_type_that_only_this_sshd_knows_is_found() -> None:
    """OpenSSH 10.6 takes ssh-mldsa44-ed25519: a line with one lets in, so it is reported and not taken for rubbish."""
    blob = wire.string(b"ssh-mldsa44-ed25519") + wire.string(bytes(range(200)))
    line = f"ssh-mldsa44-ed25519 {base64.b64encode(blob).decode('ascii')} somebody\n".encode("ascii")
    answer = f"{NEW}PubkeyAcceptedAlgorithms ssh-mldsa44-ed25519-cert,ssh-ed25519,ssh-mldsa44-ed25519\n"
    [found] = authorized_keys.read(line, rules(Effective(answer), (10, 6)))
    assert (found.problem, found.type, found.comment) == (None, "ssh-mldsa44-ed25519", "somebody")
    assert found.fingerprint is not None
    [unknown] = authorized_keys.read(line, rules(Effective(NEW), (9, 2)))
    assert unknown.fingerprint is None
    [damaged] = authorized_keys.read(line.replace(b"AAAAE3", b"AAAAE4"), rules(Effective(answer), (10, 6)))
    assert (damaged.fingerprint, damaged.problem) == (None, "the key is damaged")


def test_an_sshd_that_could_not_be_asked_its_version_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not known, ends are written in a form that an sshd before 9.1 refuses: not for good, then."""
    silent, program = tmp_path / "silent", tmp_path / "sshd"
    program.write_text(f"#!/bin/sh\n[ ! -e {silent} ] || kill -9 $$\necho OpenSSH_8.9p1 >&2\nexit 1\n", "ascii")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "find", lambda name: str(program))
    running = RunningSshd(lambda: ())
    silent.touch()
    assert running.version() == UNKNOWN
    silent.unlink()
    assert running.version() == (8, 9)


@pytest.mark.parametrize(("more", "wrong"), [("", 0), ("ExposeAuthInfo no\n", 1)])
def test_doctor_asks_no_setting_of_an_sshd_that_does_not_know_it(more: str, wrong: int) -> None:
    """ExposeAuthInfo came with 7.6; 7.2, which does without, was reported as wrong."""
    enrolment = Enrolment("http://x", "h", "s", "k", "web-1", "/keys", "/revoked")
    effective = Effective(f"{OLD}revokedkeys /revoked\n{more}")
    looked = list(doctor._check_settings(enrolment, effective, ["/keys/%u"]))
    assert [one.fine for one in looked].count(False) == wrong


@pytest.mark.parametrize(
    ("rule", "times"),
    [
        ("Match User alice\n    AuthorizedKeysFile /keys/of-alice\n", 2),
        ("Match User alice,bob Address 127.0.0.0/8\n    AuthorizedKeysFile /keys/of-both\n", 3),
        ("Match User !alice,*\n    AuthorizedKeysFile /keys/of-others\n", 12),
        ("Match User c*\n    AuthorizedKeysFile /keys/of-c\n", 12),
        ("Match Group root\n    AuthorizedKeysFile /keys/of-roots\n", 12),
        ("Match Address 127.0.0.1\n    AuthorizedKeysFile /keys/of-here\n", 1),
    ],
)
def test_sshd_is_asked_once_for_all_accounts_that_no_rule_tells_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, times: int
) -> None:
    """And it is sshd's own for each of them; a changed file is asked about anew."""
    counting = tmp_path / "sshd"
    counting.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/asked\nexec {sshd_path()} "$@"\n', "ascii")
    counting.chmod(0o755)
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "key"], check=True)
    config = tmp_path / "sshd_config"
    monkeypatch.setattr(programs, "find", lambda name: str(counting))
    monkeypatch.setattr(settings, "_ANSWER_SECONDS", 1e9)  # however slow this machine is
    names = ("alice", "bob", "carol", "root")
    before = 0
    for usual in ("/keys/%u", "/keys/of-%u", "/other/%u"):
        config.write_text(f"HostKey {tmp_path}/key\nAuthorizedKeysFile {usual}\n{rule}", "ascii")
        for _ in range(3):
            said = [Sshd(str(config)).effective(name).one("authorizedkeysfile") for name in names]
        asked = (tmp_path / "asked").read_text("ascii")
        in_it = asked.count("user=")
        assert said == [_really(config, name) for name in names]
        assert in_it - before == times
        before = in_it


def _really(config: Path, name: str) -> str:
    given = [
        str(sshd_path()),
        "-T",
        "-f",
        str(config),
        "-C",
        f"user={name},host=127.0.0.1,addr=127.0.0.1,laddr=127.0.0.1",
    ]
    lines = subprocess.run(given, capture_output=True, text=True, check=True).stdout.split("\n")
    return next(line.split(" ", 1)[1] for line in lines if line.lower().startswith("authorizedkeysfile "))
