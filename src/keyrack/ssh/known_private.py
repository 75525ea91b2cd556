"""Recognises keys whose private half is public: printed in standards, shipped in products, or easy to guess.

Not part of reading a key, and not for the agent: it reads a data file (known_private.dat, made by
scripts/make_known_private.py) that stays out of the agent's archive.

Both that file and an instance's own list have the format of badkeys' blocklist.dat, version 0, described in
its docs/BLOCKLISTFORMAT.md: sorted records of 16 bytes, each the first 15 bytes of the SHA-256 of one
number of the key without leading zero bytes, then one byte that names the list. The number is the modulus
of an RSA key, the x-coordinate of an ECDSA key, and the 32 bytes of an Ed25519 key; so one record stands
for a private key, its negative, and its use in another type of SSH key.
"""

from __future__ import annotations

import hashlib
import mmap
from bisect import bisect_left
from functools import lru_cache
from pathlib import Path
from typing import FrozenSet, Optional, Union

from keyrack.ssh.fingerprint import is_fingerprint
from keyrack.ssh.public_key import PublicKey
from keyrack.ssh.wire import Reader

RECORD = 16
HASH = 15

REASONS = {
    1: "its private half is a small number or a simple pattern",
    2: "its private half is made from a common word",
    3: "its private half is printed in a standard",
    4: "its private half was shipped with a product",
}


class BlockList:
    """Keys that must not be accepted, from badkeys' blocklist.dat or from a text file of fingerprints."""

    def __init__(self, records: Union[bytes, mmap.mmap], fingerprints: FrozenSet[str] = frozenset()) -> None:
        if len(records) % RECORD:
            raise ValueError("a block list has records of 16 bytes; this one is cut off or something else")
        self._records = records
        self._fingerprints = fingerprints

    def __len__(self) -> int:
        return len(self._records) // RECORD + len(self._fingerprints)

    def find(self, key: PublicKey) -> Optional[int]:
        """The number of the list that `key` is on (0 for a fingerprint in a text file), or None."""
        if key.fingerprint in self._fingerprints:
            return 0
        wanted = key_hash(key)
        at = bisect_left(_Hashes(self._records), wanted) * RECORD
        if self._records[at : at + HASH] == wanted:
            return self._records[at + HASH]
        return None


class _Hashes:
    """The records' hashes as a sequence for bisect, without copying the file."""

    def __init__(self, records: Union[bytes, mmap.mmap]) -> None:
        self._records = records

    def __len__(self) -> int:
        return len(self._records) // RECORD

    def __getitem__(self, at: int) -> bytes:
        start = at * RECORD
        return self._records[start : start + HASH]


def is_known(key: PublicKey) -> bool:
    """Whether the private half of `key` is public knowledge."""
    return reason(key) is not None


def reason(key: PublicKey) -> Optional[str]:
    """How the private half of `key` became known, in words that follow "this key is compromised:"; None if
    it is not.
    """
    source = _packaged().find(key)
    return None if source is None else REASONS[source]


def load(path: str) -> BlockList:
    """An instance's own list: badkeys' binary file, or text with one SHA256:... fingerprint a line and # comments.

    A binary file is mapped, not read: 60 MB cost no memory. Raises OSError, and ValueError with words when
    the file is neither.
    """
    with open(path, "rb") as file:
        start = file.read(4096)
        if _is_text(start):
            file.seek(0)
            return BlockList(b"", _read_fingerprints(file.read()))
        return BlockList(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def key_hash(key: PublicKey) -> bytes:
    """The 15 bytes that stand for `key` in a block list."""
    reader = Reader(key.blob)
    reader.string()
    if key.type == "ssh-rsa":
        reader.mpint()
        number = reader.mpint()
    elif "ed25519" in key.type:
        number = int.from_bytes(reader.string(), "big")
    else:
        reader.string()
        point = reader.string()
        number = int.from_bytes(point[1 : 1 + len(point) // 2], "big")
    return number_hash(number)


def number_hash(number: int) -> bytes:
    """The first 15 bytes of the SHA-256 of a number, most significant byte first, without leading zeros."""
    return hashlib.sha256(number.to_bytes((number.bit_length() + 7) // 8, "big")).digest()[:HASH]


@lru_cache(maxsize=None)
def _packaged() -> BlockList:
    return BlockList(Path(__file__).with_name("known_private.dat").read_bytes())


def _is_text(start: bytes) -> bool:
    return not start or start.lstrip().startswith((b"SHA256:", b"#"))


def _read_fingerprints(data: bytes) -> FrozenSet[str]:
    fingerprints = set()
    for number, line in enumerate(data.decode("utf-8", "replace").split("\n"), start=1):
        word = line.split("#", 1)[0].strip()
        if word:
            if not is_fingerprint(word):
                raise ValueError(f"line {number} of the block list is not a SHA256:... fingerprint")
            fingerprints.add(word)
    return frozenset(fingerprints)
