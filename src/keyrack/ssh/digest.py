"""SHA-256 without loading OpenSSL, which costs an agent 4 MB of memory on every host; must offer nothing else."""

from __future__ import annotations

try:
    from _sha2 import sha256 as _sha256  # type: ignore[import-not-found,unused-ignore]  # Python 3.12 and later
except ImportError:
    try:
        from _sha256 import sha256 as _sha256  # type: ignore[import-not-found,unused-ignore]  # before
    except ImportError:  # a Python built otherwise
        from hashlib import sha256 as _sha256


def sha256(data: bytes) -> bytes:
    """The 32 bytes of the digest."""
    digest: bytes = _sha256(data).digest()
    return digest
