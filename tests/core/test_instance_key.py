"""What is derived from an instance's seed stays the same for ever, or hosts, seals and tokens of before are lost."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from keyrack.core.instance_key import SEED_BYTES, InstanceKey


def test_a_seed_gives_the_keys_that_it_always_gave() -> None:
    seed = bytes(range(SEED_BYTES))
    key = InstanceKey(seed)

    def derived(purpose: str) -> bytes:
        """RFC 5869, the first block of the expand step."""
        return hmac.digest(seed, f"keyrack {purpose}".encode() + b"\x01", hashlib.sha256)

    assert key.hash_token("secret") == hmac.digest(derived("tokens"), b"secret", hashlib.sha256)
    assert key.seal_row(b"row") == hmac.digest(derived("sealed rows"), b"row", hashlib.sha256)
    assert key.seal("row", None, 1) == hmac.digest(derived("row seals"), b"row\x1f\x00\x1f1", hashlib.sha256)


@pytest.mark.parametrize(("mode", "said"), [(0o600, False), (0o400, False), (0o640, True), (0o644, True)])
def test_a_key_file_that_others_can_read_is_logged(tmp_path: Path, mode: int, said: bool) -> None:
    path = tmp_path / "instance.key"
    made = InstanceKey.load(path)
    path.chmod(mode)
    with capture_logs() as lines:
        assert InstanceKey.load(path).fingerprint == made.fingerprint
    assert [line["mend"] for line in lines] == ([f"chmod 600 {path}"] if said else [])
