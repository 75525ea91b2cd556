"""Quotes as sshd reads them, in the options of a key line and in its settings; it knows no option and no keyword.

The two have different rules. Options (OpenSSH 9.2, auth-options.c: opt_dequote; auth2-pubkeyfile.c): double quotes
alone, and only a double quote can be escaped. Settings (misc.c: argv_split): double and single quotes, and a backslash
escapes quotes, itself, and a blank outside of quotes.
"""

from __future__ import annotations

import re
from typing import List, Optional, Tuple


def end_of_options(line: str) -> Optional[int]:
    """Where the options at the start of `line` end; None when a quote is not closed."""
    quoted, at = False, 0
    while at < len(line) and (quoted or line[at] not in " \t"):
        if line.startswith('\\"', at):
            at += 1
        elif line[at] == '"':
            quoted = not quoted
        at += 1
    return None if quoted else at


def unquote_option(options: str, at: int) -> Tuple[Optional[str], int]:
    """The quoted value of an option that begins here, and where it ends. None: it is not in quotes."""
    if not options.startswith('"', at):
        return None, at
    pieces, at = [], at + 1
    while at < len(options) and options[at] != '"':
        if options.startswith('\\"', at):
            at += 1
        pieces.append(options[at])
        at += 1
    return ("".join(pieces), at + 1) if at < len(options) else (None, at)


def quote_option(value: str) -> str:
    """A value of an option in quotes: a backslash before anything but a quote is itself. Raises ValueError."""
    if value.endswith("\\"):
        raise ValueError("A value must not end with a backslash: sshd would take it for a quote's.")
    return '"' + value.replace('"', '\\"') + '"'


def setting_word(text: str, at: int) -> Tuple[str, int]:
    """The word of a setting that begins here, without its quotes, and where it ends."""
    letters: List[str] = []
    quote = ""
    while at < len(text) and (quote or text[at] not in " \t"):
        letter = text[at]
        if letter == "\\" and (
            text[at + 1 : at + 2] in ("'", '"', "\\") or (not quote and text[at + 1 : at + 2] == " ")
        ):
            at += 1
            letters.append(text[at])
        elif not quote and letter in "'\"":
            quote = letter
        elif letter == quote:
            quote = ""
        else:
            letters.append(letter)
        at += 1
    return "".join(letters), at


def quote_setting(value: str) -> str:
    """A value of a setting, in quotes where it needs them; the caller has none with a quote in it."""
    return value if re.fullmatch(r"[^\s\"#]+", value) else f'"{value}"'
