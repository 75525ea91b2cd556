"""What `sshd -T` answers is read in every version's spelling, and what is no such answer is not taken for one."""

from __future__ import annotations

import base64

import pytest

from keyrack.agent import doctor
from keyrack.agent.keys.unmanaged_keys import rules
from keyrack.agent.sshd.settings import Effective, SshdProblem
from keyrack.agent.state import Enrolment
from keyrack.ssh import authorized_keys, wire

OLD = "authorizedkeysfile .ssh/authorized_keys\npubkeyauthentication yes\npermitrootlogin without-password\n"
# Of OpenSSH 10.6.
NEW = "AuthorizedKeysFile .ssh/authorized_keys\nPubkeyAuthentication yes\nPermitRootLogin prohibit-password\n"


@pytest.mark.parametrize("answer", [OLD, NEW])
def test_keywords_in_any_case(answer: str) -> None:
    effective = Effective(answer)
    assert effective.one("PermitRootLogin") == "prohibit-password"
    assert effective.patterns("authorizedkeysfile") == (".ssh/authorized_keys",)


@pytest.mark.parametrize("answer", ["", "usage: sshd\n", "{}", "PubkeyAuthentication yes\n"])
def test_no_answer_is_no_setting(answer: str) -> None:
    with pytest.raises(SshdProblem, match="cannot read"):
        Effective(answer)


def test_a_key_of_a_type_that_only_this_sshd_knows_is_found() -> None:
    """OpenSSH 10.6 takes ssh-mldsa44-ed25519: a line with one lets in, so it is told and not taken for rubbish."""
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


@pytest.mark.parametrize(("more", "wrong"), [("", 0), ("ExposeAuthInfo no\n", 1)])
def test_doctor_asks_no_setting_of_an_sshd_that_does_not_know_it(more: str, wrong: int) -> None:
    """ExposeAuthInfo came with 7.6; 7.2, which does without, was told as wrong."""
    enrolment = Enrolment("http://x", "h", "s", "k", "web-1", "/keys", "/revoked")
    effective = Effective(f"{OLD}revokedkeys /revoked\n{more}")
    looked = list(doctor._look_at_settings(enrolment, effective, ["/keys/%u"]))
    assert [one.fine for one in looked].count(False) == wrong
