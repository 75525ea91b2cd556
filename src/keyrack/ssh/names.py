"""Which names and which text Keyrack accepts, and when two spellings are the same name; must read no database."""

from __future__ import annotations

import re
import unicodedata
from typing import Optional

_USERNAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# Accounts that hosts already have, also from directory services (first.last, CORP\\anna, anna@corp.example, HOST$).
_ACCOUNT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+$\\-]{0,63}")
LONGEST_ACCOUNT = 64

# Unicode categories that are refused wherever people see text: control, format (bidirectional marks and
# zero-width characters are here), surrogate, private use, unassigned (noncharacters too), and the two
# separators that many programs take for a line break.
_REFUSED_CATEGORIES = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))

# Characters of harmless categories that nevertheless show nothing: fillers, the combining grapheme joiner,
# invisible Khmer vowels, Mongolian variation selectors, the empty Braille cell.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")

_ZWNJ, _ZWJ = "\u200c", "\u200d"


def username_problem(value: object) -> Optional[str]:
    """Why `value` is no name for an account that is yet to be made, in words for a person; None when it is one."""
    if not isinstance(value, str):
        return "The user name must be text."
    if _USERNAME.fullmatch(value):
        return None
    if not value:
        return "The user name is empty."
    if len(value) > 32:
        return "The user name is longer than 32 characters."
    return (
        "The user name must start with a lower-case letter a-z or an underscore and go on with "
        "lower-case letters, digits, underscores and hyphens only."
    )


def account_problem(value: object) -> Optional[str]:
    """Why `value` cannot be the name of an account that a host has, in words for a person; None when it can.

    What passes is safe as a file's name, in a list with commas, and in sshd's settings; every name that
    username_problem() takes passes.
    """
    if not isinstance(value, str):
        return "The name of the account must be text."
    if _ACCOUNT.fullmatch(value):
        return None
    if not value:
        return "The name of the account is empty."
    if len(value) > LONGEST_ACCOUNT:
        return f"The name of the account is longer than {LONGEST_ACCOUNT} characters."
    return (
        "The name of the account must start with a letter, a digit or an underscore and go on with "
        "letters, digits and . _ - + @ $ \\ only."
    )


def name_problem(value: str) -> Optional[str]:
    """Why text that display_text_problem() takes cannot be a name that stands in addresses; None when it can.

    Clients take . and .. for folders, and / for the end of a name.
    """
    if "/" in value or value in (".", ".."):
        return "A name that stands in addresses holds no / and is not . or .."
    return None


def blank_problem(value: str) -> Optional[str]:
    """How a name differs from another one by blanks alone, in words for a person; None when it does not.

    Blanks at an end are not seen, and two in a row, or one of another width, look like one.
    """
    if value == plain_blanks(value):
        return None
    if value != value.strip():
        return "A name neither begins nor ends with a blank; remove it."
    return "Between two words of a name stands one plain blank; write it so."


def plain_blanks(text: str) -> str:
    """A text, changed so that blank_problem() accepts it: one plain blank between words, none at the ends."""
    if not text.isascii():
        text = "".join(" " if unicodedata.category(character) == "Zs" else character for character in text)
    return re.sub("  +", " ", text.strip(" "))


def composed(text: str) -> str:
    """The one spelling of a name (NFC): ö can be one character, or an o with a mark that is set above it."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def spellings(name: str) -> tuple[str, ...]:
    """A name as it was written, then in both normal forms: composed (NFC) and decomposed (NFD)."""
    if name.isascii():
        return (name,)
    return tuple(dict.fromkeys((name, composed(name), unicodedata.normalize("NFD", name))))


def display_text_problem(value: object, *, maximum: int) -> Optional[str]:
    """Why `value` cannot be a title or label of at most `maximum` characters; None when it can.

    Text that passes is kept as it is: nothing is trimmed or normalised.
    """
    if not isinstance(value, str):
        return "This must be text."
    if len(value) > maximum:
        return f"This is longer than {maximum} characters."
    hidden = hidden_character(value)
    if hidden is not None:
        return f"This contains {hidden}; remove it."
    if not any(unicodedata.category(c)[0] not in "ZM" for c in value):
        return "This is empty or blank."
    return None


def hidden_character(text: str) -> Optional[str]:
    """Names the first character that is a control, changes direction or cannot be seen; None when all can be.

    A joiner is fine where writing needs it: inside an emoji, after a virama, between Arabic letters.
    The answer is safe to print: it holds the code point, never the character.
    """
    if text.isascii() and text.isprintable():
        return None
    return next((words for words in (hidden_at(text, at) for at in range(len(text))) if words is not None), None)


def hidden_at(text: str, at: int) -> Optional[str]:
    """Names the character at a place of a text where it is one that hidden_character() would name; else None."""
    character = text[at]
    category = unicodedata.category(character)
    if category in _REFUSED_CATEGORIES:
        if character in (_ZWNJ, _ZWJ) and _joiner_is_needed(text, at):
            return None
        return _describe(character, category)
    if character in _INVISIBLE or (_is_selector(character) and not _selects(text, at)):
        return f"the invisible character U+{ord(character):04X}"
    return None


def _describe(character: str, category: str) -> str:
    code = f"U+{ord(character):04X}"
    if character in "\r\n":
        return "a line break"
    if character == "\t":
        return "a tab"
    if category == "Cc":
        return f"the control character {code}"
    if category in ("Zl", "Zp"):
        return f"the line separator {code}"
    if category == "Cf":
        return f"the invisible character {code}"
    return f"the character {code}, which has no agreed meaning"


def _joiner_is_needed(text: str, at: int) -> bool:
    if at == 0 or at + 1 == len(text):
        return False
    before, after = text[at - 1], text[at + 1]
    if unicodedata.combining(before) == 9:  # a virama, as in RFC 5892 appendix A
        return unicodedata.category(after)[0] == "L"
    if text[at] == _ZWNJ:
        return unicodedata.bidirectional(before) == "AL" == unicodedata.bidirectional(after)
    picture = before
    if (_is_selector(before) or "\U0001f3fb" <= before <= "\U0001f3ff") and at > 1:
        picture = text[at - 2]  # the base of a variation selector or of a skin tone
    return unicodedata.category(picture) == "So" == unicodedata.category(after)


def _is_selector(character: str) -> bool:
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def _selects(text: str, at: int) -> bool:
    """A variation selector belongs to one visible character; a run of them smuggles data past the reader."""
    return at > 0 and not _is_selector(text[at - 1]) and unicodedata.category(text[at - 1])[0] not in "ZC"
