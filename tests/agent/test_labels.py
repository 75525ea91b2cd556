"""Files get the label of the host's policy, where a host has restorecon.

No machine with SELinux can be had here. restorecon is a stand-in that notes what it is asked for; whether a real policy
lets sshd read what lies below /etc/ssh is not tried.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from keyrack.protocol.host_document import AuthorizedKey
from tests.agent.enrolled_host import EnrolledHost
from tests.agent.signed_documents import document, public_key
from tests.agent.small_service import SmallService

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="a program of its own for the agent takes root"
)


def run(host: EnrolledHost, restorecon: str) -> subprocess.CompletedProcess[str]:
    """One exchange of the agent on a machine where restorecon is this script."""
    folder = host.folder / "sbin"
    folder.mkdir(exist_ok=True)
    (folder / "restorecon").write_text(f"#!/bin/sh\n{restorecon}\n", "ascii")
    (folder / "restorecon").chmod(0o755)
    hidden = f'mount --bind {folder} /usr/local/sbin && exec "$@"'
    given = ["unshare", "-m", "--propagation", "private", "sh", "-c", hidden, "sh", *host.command("run", "--once")]
    return subprocess.run(given, capture_output=True, text=True, check=False, timeout=60)


def asked(noted: Path) -> set[str]:
    return set(noted.read_text("ascii").split()) - {"-F", "--"} if noted.exists() else set()


def test_files_that_changed_are_labelled(host: EnrolledHost, service: SmallService) -> None:
    noted = host.folder / "noted"
    key = public_key()
    service.publish(1, service.signer.signed(document(1, {"deploy": [AuthorizedKey(key)]}, [public_key()])))
    assert run(host, f'echo "$@" >>{noted}').returncode == 0
    assert asked(noted) == {str(host.keys / "deploy"), str(host.revoked_keys)}
    noted.unlink()
    assert run(host, f'echo "$@" >>{noted}').returncode == 0
    assert asked(noted) == set()


def test_an_error_of_restorecon_is_reported_and_the_files_are_written_all_the_same(
    host: EnrolledHost, service: SmallService
) -> None:
    key = public_key()
    service.publish(1, service.signer.signed(document(1, {"deploy": [AuthorizedKey(key)]})))
    ended = run(host, "echo 'no such policy' >&2; exit 1")
    assert key in (host.keys / "deploy").read_text("ascii")
    assert "no such policy" in ended.stderr
