"""Writes the file of one account's keys for sshd, and reads one that somebody else wrote; decides about no key.

Writing is strict: what is not one clean line stays out. Reading is as lenient as sshd (OpenSSH 9.2:
auth2-pubkeyfile.c), because its purpose is to say what sshd lets in today.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence

from keyrack.ssh import expiry_time, line_options, quotes
from keyrack.ssh.line_key import USUAL_RULES, SshdRules, read_key
from keyrack.ssh.names import hidden_character

HEADER = "# Written by Keyrack; changes here are lost. Ask Keyrack for a change instead.\n"


class KeyLine(NamedTuple):
    """One line of a file that sshd reads.

    options: as written; type and comment: empty when there are none; fingerprint: SHA256:..., None when the
    line holds no readable key; problem: why sshd ignores this line, None when it accepts the key; public_key: type and
    base64, empty when there is no readable key; authority: the key is a certificate authority's (cert-authority);
    ends_at: seconds since 1970, after which sshd ignores the line, None: no end.
    """

    line_number: int
    options: str
    type: str
    fingerprint: Optional[str]
    comment: str
    problem: Optional[str]
    public_key: str = ""
    authority: bool = False
    ends_at: Optional[int] = None


def end_of(expires_at: datetime) -> int:
    """The end of a key (aware) in whole seconds since 1970: from then on it opens nothing. Fractions are cut off, never
    rounded up. How that is written: expiry_time.py.
    """
    if expires_at.tzinfo is None:
        raise ValueError("the end of a key must have a time zone")
    return math.floor(expires_at.timestamp())


def expiry_option(value: str) -> str:
    """The option by which sshd itself ends a key, without the service or the agent (Invariant 5). value: see
    expiry_time.py.
    """
    return f'expiry-time="{value}"'


def key_line(public_key: str, options: Sequence[str] = (), expires_at: Optional[datetime] = None) -> str:
    """One line of a file, without its end: options that options.py has made or checked, the end in UTC, the key."""
    parts = [*options]
    if expires_at is not None:
        parts.append(expiry_option(expiry_time.in_utc(end_of(expires_at))))
    return f"{','.join(parts)} {public_key}" if parts else public_key


def render(lines: Iterable[str]) -> bytes:
    """The whole file. Raises ValueError when sshd could read a line as several lines, or as none."""
    checked = []
    for line in lines:
        if not line or line != line.strip(" \t") or line.startswith("#"):
            raise ValueError("a key line is empty, a comment, or has blanks around it")
        if hidden_character(line) is not None:
            raise ValueError("a key line holds a line break or another character that cannot be seen")
        checked.append(line)
    return (HEADER + "".join(f"{line}\n" for line in checked)).encode("utf-8")


def read(data: bytes, rules: SshdRules = USUAL_RULES) -> List[KeyLine]:
    """Every line of an authorized_keys file that is not blank or a comment, as an sshd with these rules takes it."""
    return list(each_line(data, rules))


def each_line(data: bytes, rules: SshdRules = USUAL_RULES) -> Iterator[KeyLine]:
    """The same one by one: lines of a character take a hundred times as much memory when they are read."""
    number = at = 0
    while at <= len(data):
        number += 1
        # Only \n ends a line for sshd, and C text ends at NUL.
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        line = data[at:end].split(b"\0", 1)[0].lstrip(b" \t")
        at = end + 1
        if line.strip() and not line.startswith(b"#"):
            yield _read_line(number, line.decode("latin-1"), rules)


def _read_line(number: int, line: str, rules: SshdRules) -> KeyLine:
    """One line, one character a byte."""
    key, options = read_key(line, rules), ""
    if key is None:
        end = quotes.end_of_options(line)
        if end is None:
            return KeyLine(number, "", "", None, "", "the quotes of its options do not end")
        options = line[:end]
        key = read_key(line[end:].lstrip(" \t"), rules)
    if key is None:
        return KeyLine(number, "", "", None, "", "there is no key of a known type on this line")
    parsed = line_options.parse(options, version=rules.version)
    return KeyLine(
        number,
        _printable(options),
        key.type,
        key.fingerprint,
        _printable(key.comment.rstrip("\r")),
        key.problem or parsed.problem,
        f"{key.type} {key.encoded}" if key.fingerprint else "",
        parsed.cert_authority,
        parsed.ends_at,
    )


def _printable(text: str) -> str:
    """Text from a file that anybody may have written, one character a byte, made safe to print and report."""
    text = text.encode("latin-1").decode("utf-8", "replace")
    if hidden_character(text) is None:
        return text
    return "".join("\ufffd" if hidden_character(character) else character for character in text)
