"""A folder of keys whose name has blanks is one name, wherever sshd's settings are read: real sshd."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from keyrack.agent import doctor
from keyrack.agent.sshd.enforcement import Enforcement
from keyrack.agent.state import Enrolment, StateFolder


@pytest.mark.parametrize("quote", ['"', "'"])
def test_a_quoted_folder_name_with_blanks_is_one_pattern(folder: Path, quote: str) -> None:
    keys = folder / "all keys"
    config = folder / "sshd_config"
    config.write_text(f"AuthorizedKeysFile {quote}{keys}/%u{quote} .ssh/keys\n", "utf-8")
    key = folder / "host_key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=60)
    config.write_text(f"{config.read_text('utf-8')}HostKey {key}\n", "utf-8")
    memory = StateFolder.open(str(folder / "agent"), create=True)
    try:
        enrolment = Enrolment("http://127.0.0.1:9", "h", "s", "", "web-1", str(keys), str(folder / "no"), str(config))
        held = Enforcement(memory, enrolment, str(folder / "drop-in.conf"), lambda words: None)
        assert held._patterns() == (f"{keys}/%u", ".ssh/keys")
        (finding,) = [one for one in doctor._check_sshd(memory, enrolment) if "AuthorizedKeysFile" in one.words]
        assert finding.fine, finding
    finally:
        memory.folder.close()
