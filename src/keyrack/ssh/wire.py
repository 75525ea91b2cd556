"""Reads and writes the binary fields of RFC 4251 section 5; must know no key types and trust no length."""

from __future__ import annotations

import struct


class WireError(ValueError):
    """A blob that breaks RFC 4251; the words say how, and never repeat the bytes."""


class Reader:
    """Takes the fields of one blob in order; each method raises WireError instead of guessing."""

    def __init__(self, blob: bytes) -> None:
        self._blob = blob
        self._at = 0

    def string(self, what: str = "field") -> bytes:
        """The next length-prefixed string; `what` names it in the error."""
        start = self._at + 4
        if start > len(self._blob):
            raise WireError(f"it ends before its {what}")
        (length,) = struct.unpack_from(">I", self._blob, self._at)
        end = start + length
        # Python's integers do not wrap, so a length of 2**32-1 simply lies beyond the end.
        if end > len(self._blob):
            raise WireError(f"its {what} is cut short")
        self._at = end
        return self._blob[start:end]

    def mpint(self, what: str = "number") -> int:
        """The next integer, zero or positive, in its one shortest form.

        A longer form is the same number with another fingerprint, which would defeat every duplicate check.
        """
        raw = self.string(what)
        if not raw:
            return 0
        if raw[0] & 0x80:
            raise WireError(f"its {what} is negative")
        if raw[0] == 0 and (len(raw) == 1 or not raw[1] & 0x80):
            raise WireError(f"its {what} starts with needless zero bytes")
        return int.from_bytes(raw, "big")

    @property
    def rest(self) -> bytes:
        """What has not been taken yet."""
        return self._blob[self._at :]

    def end(self) -> None:
        """Raises WireError unless everything was taken."""
        if self._at != len(self._blob):
            raise WireError(f"{len(self._blob) - self._at} bytes follow its end")


def string(value: bytes) -> bytes:
    """`value` with its length in front."""
    return struct.pack(">I", len(value)) + value


def mpint(value: int) -> bytes:
    """A non-negative integer in its shortest form, with its length in front."""
    if value < 0:
        raise ValueError("a negative number has no place in a public key")
    return string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")
