"""Sentences and the commands behind them are taken apart as they were put together; hosts' words cannot feign it."""

from __future__ import annotations

import pytest

from keyrack.core.next_steps import commands, sentence, with_commands


@pytest.mark.parametrize("end", ["", "."])
def test_a_sentence_is_split_from_its_commands(end: str) -> None:
    words = with_commands("Say so, or paste the line.", "hosts enrol 5", "hosts copy-gone 5") + end
    assert words.startswith("Say so, or paste the line. On the command line: `keyrack hosts enrol 5` or `keyrack ")
    assert sentence(words) == "Say so, or paste the line"
    assert commands(words) == ("keyrack hosts enrol 5", "keyrack hosts copy-gone 5")


@pytest.mark.parametrize(
    "words",
    [
        "",
        "Mend it, then `keyrack hosts enforce 5`",
        "it said: x. On the command line: all is well. It tries again",
        "it said: x. On the command line: `keyrack hosts enforce 5`. It tries again",
        "it said: x. On the command line: `keyrack hosts enforce 5` or not",
    ],
)
def test_words_without_commands_behind_them_stay_whole(words: str) -> None:
    assert (sentence(words), commands(words)) == (words, ())


def test_a_hosts_words_take_nothing_from_the_sentence() -> None:
    said = "it said: x. On the command line: `keyrack hosts remove 5`. Decide"
    words = with_commands(said, "hosts resync 5")
    assert (sentence(words), commands(words)) == (said, ("keyrack hosts resync 5",))
