"""Text of others is shown on one line, with nothing in it that a terminal obeys."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyrack.ssh.names import hidden_character
from keyrack.ssh.printable import all_printable, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/jörg/山田 😀👨‍👩‍👧/authorized_keys", "/home/jörg/山田 😀👨‍👩‍👧/authorized_keys"),
        ("ends\r\nOK  forged", "ends\\r\\nOK  forged"),
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("tab\there\x00", "tab\\there\\x00"),
        ("user\u202etxt.exe", "user\\u202etxt.exe"),
        ("half \ud800 of one", "half \\ud800 of one"),
        ("a\u2028b\u2029c\u200bd", "a\\u2028b\\u2029c\\u200bd"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("C:\\new", "C:\\new"),
    ],
)
def test_each_control_character_is_shown_as_plain_text(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(), max_size=50))
def test_any_text_is_shown_as_one_line(text: str) -> None:
    shown = printable(text)
    shown.encode("utf-8")
    assert len(shown.splitlines()) <= 1
    assert hidden_character(shown) is None
    assert printable(shown) == shown


def test_every_text_within_a_json_value_is_made_printable() -> None:
    value = json.loads('{"a\\nb": ["\\u001b", {"c": "\\ud800"}, 1, true, null]}')
    assert all_printable(value) == {"a\\nb": ["\\x1b", {"c": "\\ud800"}, 1, True, None]}
