"""Writes the file of one account's keys for sshd, and reads one that somebody else wrote; decides about no key.

Writing is strict: what is not one clean line stays out. Reading is as lenient as sshd (OpenSSH 9.2:
auth2-pubkeyfile.c, auth-options.c, sshkey_read), because its purpose is to say what sshd lets in today.
"""

from __future__ import annotations

import binascii
import re
from datetime import datetime, timezone
from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple

from keyrack.ssh.blob import TYPES
from keyrack.ssh.curves import nist_problem
from keyrack.ssh.digest import sha256
from keyrack.ssh.names import hidden_character
from keyrack.ssh.wire import Reader, WireError

HEADER = "# Written by Keyrack; changes here are lost. Ask Keyrack for a change instead.\n"

_OPTION_NAME = re.compile(r"[A-Za-z0-9-]+")
_EXPIRY = re.compile(r"[0-9]{8}(?:[0-9]{4}(?:[0-9]{2})?)?Z?")
_SMALLEST_RSA = 1024  # bits; OpenSSH's own limit, far below ours

# Options as sshd knows them, in lower case: it compares without case.
_NEGATABLE = ("agent-forwarding", "port-forwarding", "pty", "touch-required", "user-rc", "verify-required")
_FOREIGN_FLAGS = frozenset(
    ["restrict", "cert-authority", "x11-forwarding", "no-x11-forwarding", *_NEGATABLE]
    + [f"no-{name}" for name in _NEGATABLE]
)
_FOREIGN_VALUES = frozenset(
    ("command", "environment", "expiry-time", "from", "permitlisten", "permitopen", "principals", "tunnel")
)
_ONLY_ONCE = ("command", "from", "principals")

_DSA = "ssh-dss"
_CERTIFICATE = re.compile(r"[a-z0-9-]+-cert-v01@openssh\.com")


class FoundKey(NamedTuple):
    """One line of a file that sshd reads.

    options: as written; type and comment: empty when there are none; fingerprint: SHA256:..., None when the
    line holds no readable key; problem: why sshd ignores this line, None when it lets the key in; key: type and
    base64, empty when there is no readable key.
    """

    line_number: int
    options: str
    type: str
    fingerprint: Optional[str]
    comment: str
    problem: Optional[str]
    key: str = ""


def expiry_option(expires_at: datetime) -> str:
    """The option that ends a key at `expires_at` (aware), whatever else is dead by then (Invariant 5).

    Always with Z: without it sshd reads the host's local time. Fractions of a second are cut off, never
    rounded up; sshd lets in during the second that is written here and not after it.
    """
    if expires_at.tzinfo is None:
        raise ValueError("the end of a key must have a time zone")
    moment = expires_at.astimezone(timezone.utc)
    return (
        f'expiry-time="{moment.year:04d}{moment.month:02d}{moment.day:02d}'
        f'{moment.hour:02d}{moment.minute:02d}{moment.second:02d}Z"'
    )


def key_line(canonical: str, options: Sequence[str] = (), expires_at: Optional[datetime] = None) -> str:
    """One line of a file, without its end: options that options.py has made or checked, the end, the key."""
    parts = [*options]
    if expires_at is not None:
        parts.append(expiry_option(expires_at))
    return f"{','.join(parts)} {canonical}" if parts else canonical


def render(lines: Iterable[str]) -> bytes:
    """The whole file. The last gate: raises ValueError when a line could be more than one line, or none, to sshd."""
    checked = []
    for line in lines:
        if not line or line != line.strip(" \t") or line.startswith("#"):
            raise ValueError("a key line is empty, a comment, or has blanks around it")
        if hidden_character(line) is not None:
            raise ValueError("a key line holds a line break or another character that cannot be seen")
        checked.append(line)
    return (HEADER + "".join(f"{line}\n" for line in checked)).encode("utf-8")


def read(data: bytes) -> List[FoundKey]:
    """Every line of an authorized_keys file that is not blank or a comment, as sshd would take it."""
    found = []
    for number, raw in enumerate(data.split(b"\n"), start=1):
        # Only \n ends a line for sshd, and C text ends at NUL.
        line = raw.split(b"\0", 1)[0].lstrip(b" \t")
        if line and not line.startswith(b"#"):
            found.append(_read_line(number, line.decode("utf-8", "replace")))
    return found


def _read_line(number: int, line: str) -> FoundKey:
    key = _read_key(line)
    options = ""
    if key is None:
        end = _end_of_options(line)
        if end is None:
            return FoundKey(number, "", "", None, "", "the quotes of its options do not end")
        options, rest = line[:end], line[end:].lstrip(" \t")
        key = _read_key(rest)
        if key is None:
            return FoundKey(number, "", "", None, "", "there is no key of a known type on this line")
    key_type, fingerprint, comment, problem, encoded = key
    problem = problem or (_option_problem(options) if options else None)
    text = f"{key_type} {encoded}" if fingerprint else ""
    return FoundKey(number, _printable(options), key_type, fingerprint, _printable(comment.rstrip("\r")), problem, text)


def _printable(text: str) -> str:
    """Text from a file of unknown hands, made safe to print and report."""
    if hidden_character(text) is None:
        return text
    return "".join("\ufffd" if hidden_character(character) else character for character in text)


def _end_of_options(line: str) -> Optional[int]:
    """Where the options end, by sshd's rule for quotes; None when a quote stays open."""
    quoted, at = False, 0
    while at < len(line) and (quoted or line[at] not in " \t"):
        if line.startswith('\\"', at):
            at += 1
        elif line[at] == '"':
            quoted = not quoted
        at += 1
    return None if quoted else at


def _read_key(text: str) -> Optional[Tuple[str, Optional[str], str, Optional[str], str]]:
    """Type, fingerprint, comment, problem, base64 of a key at the start of `text`; None when no type stands there."""
    fields = re.match(r"([^ \t]+)[ \t]+([^ \t]+)[ \t]*(.*)", text, re.DOTALL)
    if fields is None:
        return None
    key_type, encoded, comment = fields.groups()
    if key_type not in TYPES and key_type != _DSA and not _CERTIFICATE.fullmatch(key_type):
        return None
    # Like OpenSSH's decoder, skip white space (the \r of a Windows file), and take only the canonical form.
    encoded = re.sub(r"[\r\v\f]", "", encoded)
    try:
        blob = binascii.a2b_base64(encoded)
    except ValueError:
        blob = b""
    if not blob or binascii.b2a_base64(blob, newline=False).decode("ascii") != encoded:
        return key_type, None, comment, "the key is not valid base64", ""
    fingerprint = "SHA256:" + binascii.b2a_base64(sha256(blob), newline=False).decode().rstrip("=")
    if key_type == _DSA:
        return key_type, fingerprint, comment, "DSA keys are not accepted", encoded
    if key_type not in TYPES:
        return key_type, fingerprint, comment, "a certificate opens nothing from this file", encoded
    try:
        return key_type, fingerprint, comment, _blob_problem(key_type, Reader(blob)), encoded
    except (WireError, UnicodeDecodeError):
        return key_type, None, comment, "the key is damaged", ""


def _blob_problem(key_type: str, reader: Reader) -> Optional[str]:
    """What keeps OpenSSH from loading a blob; raises WireError when it is cut short."""
    if reader.string() != key_type.encode("ascii"):
        return "the key inside is of another type"
    if key_type == "ssh-rsa":
        reader.string()
        bits = int.from_bytes(reader.string(), "big").bit_length()
        if bits < _SMALLEST_RSA:
            return f"an RSA key of {bits} bits is too short"
    elif "ed25519" in key_type:
        if len(reader.string()) != 32:
            return "an Ed25519 key has exactly 32 bytes"
    else:
        curve = reader.string().decode("ascii", "replace")
        if not key_type.endswith(curve) and not key_type.endswith(f"{curve}@openssh.com"):
            return "the key is for another curve"
        problem = nist_problem(curve, reader.string())
        if problem:
            return problem
    if key_type.startswith("sk-"):
        reader.string()
    reader.end()
    return None


def _option_problem(options: str) -> Optional[str]:
    """Why sshd refuses a line for its options; it refuses the whole line for one that it does not know."""
    seen: List[str] = []
    at = 0
    while at < len(options):
        if options[at] == ",":  # sshd skips any number of them, wherever they are
            at += 1
            continue
        name = _OPTION_NAME.match(options, at)
        word = name.group().lower() if name else ""
        at = name.end() if name else at
        if word in _FOREIGN_VALUES and options.startswith('="', at):
            end = at + 2
            while end < len(options) and options[end] != '"':
                end += 2 if options.startswith('\\"', end) else 1
            value, at = options[at + 2 : end], end + 1
            if word == "expiry-time" and not _EXPIRY.fullmatch(value):
                return "its expiry-time is not a time"
            if word in _ONLY_ONCE and word in seen:
                return f"its options hold {word} twice"
        elif word not in _FOREIGN_FLAGS:
            return "sshd does not know one of its options"
        if at < len(options) and options[at] != ",":
            return "one of its options does not end where the next begins"
        seen.append(word)
    return None
