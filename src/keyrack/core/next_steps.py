"""The sentence of an alarm or a refusal and the commands that come next, put together and taken apart; must know no
alarm and no refusal of its own.
"""

from __future__ import annotations

_MARK = ". On the command line: "
_BETWEEN = " or "


def with_commands(sentence: str, *commands: str) -> str:
    """A sentence, followed by the commands that do what it says, such as "hosts resync 5"; it must say what to do also
    to whoever sees it alone.
    """
    return sentence.rstrip(".") + _MARK + _BETWEEN.join(f"`keyrack {command}`" for command in commands)


def sentence(words: str) -> str:
    """Words without the commands that with_commands() put behind them; all of them where it put none."""
    return _apart(words)[0]


def commands(words: str) -> tuple[str, ...]:
    """The commands behind words, each such as "keyrack hosts resync 5"; none where there are none."""
    return _apart(words)[1]


def _apart(words: str) -> tuple[str, tuple[str, ...]]:
    said, mark, rest = words.rpartition(_MARK)
    found = rest.removesuffix(".").split(_BETWEEN)
    # Hosts' own words may stand in a sentence: what is no command stays.
    if mark and all(one.startswith("`keyrack ") and one.endswith("`") for one in found):
        return said, tuple(one.strip("`") for one in found)
    return words, ()
