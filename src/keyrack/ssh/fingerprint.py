"""A key's SHA-256 fingerprint, as `ssh-keygen -l` prints it: made, and recognized; must judge no key."""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Optional

from keyrack.ssh.digest import sha256
from keyrack.ssh.wire import Reader, WireError

PATTERN = r"SHA256:[A-Za-z0-9+/]{43}"
"""For a regular expression that finds one in a longer text, such as a line of sshd's log."""

_WHOLE = re.compile(PATTERN)


def is_fingerprint(value: object) -> bool:
    """Whether a value is text in the form of a fingerprint and nothing more; there need be no such key."""
    return isinstance(value, str) and _WHOLE.fullmatch(value) is not None


@lru_cache(maxsize=256)  # one call asks for that of its key half a dozen times
def of_blob(blob: bytes) -> str:
    """The fingerprint of a key's blob, which is what stands in base64 in a line: SHA256: and base64 without padding."""
    return "SHA256:" + binascii.b2a_base64(sha256(blob), newline=False).decode("ascii").rstrip("=")


def of_public_key(public_key: str) -> Optional[str]:
    """The fingerprint of type and base64, whatever key it is; None for what is not these two.

    The type in the blob must be the one in front of it.
    """
    key_type, _, encoded = public_key.partition(" ")
    try:
        blob = base64.b64decode(encoded, validate=True)
        return of_blob(blob) if Reader(blob).string() == key_type.encode("ascii") else None
    except (ValueError, WireError):
        return None
