"""Numbers and strings as SSH writes them (RFC 4251)."""

from __future__ import annotations

import pytest

from keyrack.ssh.wire import Reader, WireError, mpint, string


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 2**31, 2**32, 2**2048 - 1, 2**2047])
def test_numbers_come_back(value: int) -> None:
    reader = Reader(mpint(value))
    assert reader.mpint() == value
    reader.end()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "00000000"), (0x9A378F9B2E332A7, "0000000809a378f9b2e332a7"), (0x80, "000000020080")],
)
def test_numbers_are_written_as_in_rfc_4251(value: int, expected: str) -> None:
    assert mpint(value).hex() == expected


@pytest.mark.parametrize("raw", [b"\x80", b"\xff\xff", b"\0", b"\0\0", b"\0\x7f", b"\0\0\x80"])
def test_a_number_in_another_form_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        Reader(string(raw)).mpint()


@pytest.mark.parametrize(
    "blob", [b"", b"\0\0\0", b"\0\0\0\1", b"\xff\xff\xff\xff", b"\xff\xff\xff\xffab", b"\0\0\0\3ab"]
)
def test_short_blobs_are_refused(blob: bytes) -> None:
    with pytest.raises(WireError):
        Reader(blob).string()


def test_fields_come_in_order_and_nothing_may_follow() -> None:
    reader = Reader(string(b"a") + string(b"") + b"x")
    assert (reader.string(), reader.string(), reader.rest) == (b"a", b"", b"x")
    with pytest.raises(WireError, match="1 bytes follow"):
        reader.end()
