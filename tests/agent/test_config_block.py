"""Settings in sshd_config itself: sshd reads ours before all others, and what is the host's own stays to the byte."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from keyrack.agent.sshd import config_block, drop_in
from keyrack.agent.sshd.settings import Effective
from tests.login.private_sshd import sshd_path

SETTINGS = drop_in.wanted("/etc/ssh/keyrack/keys", "/etc/ssh/keyrack/revoked_keys", {"UseDNS": "no"})
PLAIN = b"# a host\nPort 22\nAuthorizedKeysFile .ssh/authorized_keys"
WITH_RULES = PLAIN + (
    b"\nUseDNS yes\n\n  mAtCh  User krone # one\n    AuthorizedKeysFile /own\n"
    b"Match Group wheel\r\n    AuthorizedKeysFile /theirs\n"
)
NEW, OLD = (8, 0), (7, 4)


@pytest.mark.parametrize("text", [b"", PLAIN, PLAIN + b"\n", WITH_RULES, b"Match=all\n    UsePAM no\n"])
def test_put_and_taken_away_to_the_byte(text: bytes) -> None:
    put = config_block.put(text, SETTINGS, NEW)
    assert config_block.put(put, SETTINGS, NEW) == put
    assert config_block.without(put) == text
    other = config_block.put(put, {**SETTINGS, "PasswordAuthentication": "no"}, NEW)
    assert other != put
    assert config_block.without(other) == text


def test_edits_around_keyracks_settings_stay() -> None:
    put = config_block.put(WITH_RULES, SETTINGS, NEW)
    edited = b"# first\n" + put.replace(b"Port 22", b"Port 2222") + b"    X11Forwarding no\n"
    wanted = b"# first\n" + WITH_RULES.replace(b"Port 22", b"Port 2222") + b"    X11Forwarding no\n"
    assert config_block.without(edited) == wanted
    # Somebody took an end away: what is between is not taken for ours.
    torn = put.replace(config_block.END, b"", 1)
    assert b"Port 22" in config_block.without(torn)


@pytest.mark.parametrize("user", ["root", "krone", "somebody"])
def test_sshd_reads_it_before_all_others(tmp_path: Path, user: str) -> None:
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True, timeout=60)
    config = tmp_path / "sshd_config"
    # A rule may hold no HostKey, so sshd would not start if one stood below ours.
    text = f"HostKey {tmp_path}/key\n".encode() + WITH_RULES
    config.write_bytes(config_block.put(text, SETTINGS, NEW))
    given: list[str | Path] = [sshd_path(), "-T", "-f", config, "-C", f"user={user},host=localhost,addr=127.0.0.1"]
    ended = subprocess.run(given, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert drop_in.missing(Effective(ended.stdout), SETTINGS) == []


def test_a_setting_that_this_sshd_does_not_know_is_left_out() -> None:
    assert b"ExposeAuthInfo" in config_block.put(PLAIN, SETTINGS, NEW)
    assert b"ExposeAuthInfo" not in config_block.put(PLAIN, SETTINGS, OLD)
