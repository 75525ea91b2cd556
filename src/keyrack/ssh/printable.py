"""Makes text from elsewhere safe for a terminal and a log, on one line; must drop no character."""

from __future__ import annotations

from typing import Any

from keyrack.ssh.names import hidden_at


def printable(text: str) -> str:
    """The text on one line: what is a control, changes direction, cannot be seen or is half a character stands as
    its number, like \\x1b, \\n or \\u202e. All else stays as it is, in whatever script.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character if hidden_at(text, at) is None else _escape(character) for at, character in enumerate(text)
    )


def all_printable(value: Any) -> Any:
    """A JSON value with every text in it, names too, as printable() has it."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {all_printable(name): all_printable(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [all_printable(inner) for inner in value]
    return value


def _escape(character: str) -> str:
    short = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    if short is not None:
        return short
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
