"""Names of users and accounts, and texts to display: what is accepted and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from keyrack.ssh.names import account_problem, display_text_problem, hidden_character, username_problem
from tests.ssh.cases import cases, value_of

NAMES = cases("names.jsonl")

# Well-formed by the grammar; whether a system account may be used is for the policy.
ARGUABLE = [case for case in NAMES if case["must_be"] == "arguable"]


def problem_of(case: dict[str, Any]) -> str | None:
    value = value_of(case)
    return username_problem(value) if case["field"] == "username" else display_text_problem(value, maximum=255)


@pytest.mark.parametrize("case", [case for case in NAMES if case not in ARGUABLE], ids=lambda case: str(case["name"]))
def test_takes_and_refuses_what_it_must(case: dict[str, Any]) -> None:
    problem = problem_of(case)
    assert (problem is None) == (case["must_be"] == "accepted"), problem
    if problem is not None:
        assert problem.isprintable()
        assert problem.endswith(".")


@pytest.mark.parametrize("case", ARGUABLE, ids=lambda case: str(case["name"]))
def test_system_accounts_are_names_and_capitals_are_not(case: dict[str, Any]) -> None:
    assert (problem_of(case) is None) == value_of(case).islower()


@pytest.mark.parametrize(
    "value",
    ["root\n", "\nroot", "a" * 33, "", "1a", "-a", "a.b", "ａ", "é", b"root", 0, None, ["a"], "a\0", "a b", "A"],
)
def test_invalid_user_names_are_refused(value: object) -> None:
    assert username_problem(value) is not None


@pytest.mark.parametrize("value", ["a", "_", "a" * 32, "web-1", "_apt", "a_b-c9", "systemd-timesync"])
def test_valid_user_names_are_accepted(value: str) -> None:
    assert username_problem(value) is None


@pytest.mark.parametrize(
    "value", ["a", "first.last", "Anna", "9a", "a-", "host$", "anna@corp.example", "CORP\\anna", "a+b", "a" * 64, "_"]
)
def test_names_that_hosts_use_are_accepted_as_accounts(value: str) -> None:
    assert account_problem(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "", ".", "..", ".a", "-a", "$a", "@a", "\\a", "a" * 65, "a/b", "a b", "a,b", "a:b", "a%u", "a*", "a?", "!a",
        "a\n", "a\0", "a'b", 'a"b', "a#b", "a=b", "é", "ａ", b"a", None, 0, ["a"],
    ],
)  # fmt: skip
def test_an_account_name_with_a_special_meaning_is_refused(value: object) -> None:
    problem = account_problem(value)
    assert problem is not None
    assert problem.endswith(".")


@pytest.mark.parametrize(
    "value",
    [
        "👩\u200d👩\u200d👧 family", "❤\ufe0f\u200d🔥", "👍🏽", "🧑🏽\u200d💻 laptop", "می\u200cخواهم", "क्\u200dष",
        "葛\U000e0100",        " spaced ", "a\u00a0b", "e\u0301", "日本語", "Ελληνικά", "שלום", "<script>",
        "=1+1", "🏳\ufe0f\u200d🌈",
    ],
)  # fmt: skip
def test_text_in_every_script_is_taken(value: str) -> None:
    assert display_text_problem(value, maximum=255) is None


@pytest.mark.parametrize(
    "value",
    [
        "a\u200db", "a\u200cb", "\u200d", "🔑\u200d", "\u200d🔑", "a\u202eb", "a\u2066b\u2069", "a\ufeffb", "a\u00adb",
        "a\u2060b", "a\u180eb", "a\U000e0041b", "a\ue000", "a\ufdd0", "\u3164", "a\u2800", "a\u115f",
        "a\u034fb", "a\ufe0f\ufe0f",
        " \ufe0f", "a\U000e0100\U000e0101", "\u0301", " \u0301", "\u2003", "a\tb", "a\x7f", "a\x85b", "a\ud83d",
    ],
)  # fmt: skip
def test_invisible_characters_are_refused(value: str) -> None:
    problem = display_text_problem(value, maximum=255)
    assert problem is not None
    assert problem.isprintable()


def test_a_title_is_measured_in_characters() -> None:
    assert display_text_problem("🔑" * 255, maximum=255) is None
    assert display_text_problem("🔑" * 256, maximum=255) == "This is longer than 255 characters."


def test_a_hidden_character_is_named_and_not_printed() -> None:
    assert hidden_character("plain") is None
    assert hidden_character("a\u202eb") == "the invisible character U+202E"
    assert hidden_character("a\nb") == "a line break"
