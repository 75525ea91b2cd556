"""Fresh public keys, and the settings' published corpora, for tests of the core."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

DATA = Path(__file__).parent.parent / "data"


def fresh_line(comment: str = "") -> str:
    """A new Ed25519 public key line."""
    raw = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    blob = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + raw
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} {comment}".strip()


def records(name: str) -> list[dict[str, Any]]:
    """The records of a file of tests/data, one JSON object a line."""
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").split("\n") if line.strip()]
