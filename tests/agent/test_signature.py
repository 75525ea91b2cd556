"""Documents are checked by the agent itself: it needs no ssh-keygen, and takes what ssh-keygen would, of one key."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from keyrack.agent.service import signature
from keyrack.protocol.document_words import NAMESPACE
from keyrack.protocol.host_document import AuthorizedKey
from keyrack.ssh import sshsig, wire
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import Signer, document, public_key
from tests.agent.small_service import SmallService

TEXT = '{"a": "é"}'


def problem(signer: Signer, text: str, armoured: str) -> str:
    """Why a document is not taken; empty where it is."""
    try:
        signature.check(signer.public, text, armoured)
    except signature.DocumentSignatureProblem as refused:
        return str(refused)
    return ""


def test_a_signature_holds_for_one_key_one_purpose_and_one_text() -> None:
    signer, stranger = Signer(), Signer()
    good = signer.sign(TEXT)
    assert problem(signer, TEXT, good) == ""
    assert "not of this text" in problem(signer, TEXT + " ", good)
    assert "of another key" in problem(signer, TEXT, stranger.sign(TEXT))
    assert "for something else" in problem(signer, TEXT, signer.sign(TEXT, "git"))
    for damaged in ("", "x", good[:-40], good.replace("A", "B", 3), "é", good * 100):
        assert problem(signer, TEXT, damaged)


def test_a_signature_of_another_type_or_with_trailing_bytes_is_refused() -> None:
    signer = Signer()
    blob = sshsig.read(signer.sign(TEXT)).public_blob
    value = sshsig.read(signer.sign(TEXT)).value
    rests = {
        wire.string(b"ssh-ed25519") + wire.string(value) + b"\1": "not of this text",
        wire.string(b"sk-ssh-ed25519@openssh.com") + wire.string(value): "not of this text",
        wire.string(b"ssh-ed25519") + wire.string(value + b"\0"): "not of this text",
    }
    for signed, words in rests.items():
        body = b"SSHSIG\0\0\0\1" + b"".join(map(wire.string, (blob, NAMESPACE.encode(), b"", b"sha512", signed)))
        armoured = f"-----BEGIN SSH SIGNATURE-----\n{base64.b64encode(body).decode()}\n-----END SSH SIGNATURE-----\n"
        assert words in problem(signer, TEXT, armoured)


def test_only_an_ed25519_key_is_noted_at_enrolment() -> None:
    assert signature.can_check(Signer().public)
    for key in ("", "ssh-rsa AAAA", "ssh-ed25519 AAAA", f"ssh-rsa {Signer().public.split()[1]}"):
        assert not signature.can_check(key)


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="hiding a program takes root and unshare")
def test_a_document_is_obeyed_where_ssh_keygen_cannot_check_it(host: EnrolledHost, service: SmallService) -> None:
    key = public_key()
    service.publish(1, service.signer.signed(document(1, {"deploy": [AuthorizedKey(key)]})))
    program = shutil.which("ssh-keygen")
    assert program is not None
    hide = f'mount --bind /bin/false {Path(program).resolve()} && exec "$@"'
    given = ["unshare", "-m", "--propagation", "private", "sh", "-c", hide, "sh", *host.command("run", "--once")]
    ended = subprocess.run(given, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert key in (host.keys / "deploy").read_text("ascii")
