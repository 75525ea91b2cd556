"""Joins the sentence of an alarm or a refusal with the commands to run next, and takes them apart; must know no alarm
and no refusal itself.
"""

from __future__ import annotations

_MARK = ". On the command line: "
_BETWEEN = " or "


def with_commands(sentence: str, *commands: str) -> str:
    """A sentence followed by the commands that do what it says, such as "hosts resync 5".

    The sentence alone must say what to do as well, as not everybody sees the commands.
    """
    return sentence.rstrip(".") + _MARK + _BETWEEN.join(f"`keyrack {command}`" for command in commands)


def sentence(words: str) -> str:
    """Words without the commands that with_commands() added."""
    return _split(words)[0]


def commands(words: str) -> tuple[str, ...]:
    """The commands in words, each such as "keyrack hosts resync 5"; () where there are none."""
    return _split(words)[1]


def _split(words: str) -> tuple[str, tuple[str, ...]]:
    first, mark, rest = words.rpartition(_MARK)
    parts = rest.removesuffix(".").split(_BETWEEN)
    # A sentence may quote a host's words: what is no command stays in it.
    if mark and all(one.startswith("`keyrack ") and one.endswith("`") for one in parts):
        return first, tuple(one.strip("`") for one in parts)
    return words, ()
