"""Reads the options in front of a key exactly as sshd does; must judge no key and write no option.

Source: OpenSSH 9.2, auth-options.c (sshauthopt_parse, handle_permit), misc.c (hpdelim2, a2port, a2tun,
parse_absolute_time), addr.c and addrmatch.c (from). Text is one character a byte (latin-1), as C has it.
"""

from __future__ import annotations

import calendar
import re
import socket
import sys
import time
from typing import Dict, List, NamedTuple, Optional, Tuple

from keyrack.ssh import expiry_time
from keyrack.ssh.quotes import unquote_option

# sshd compares names without case, and only their beginning: what follows must then be a comma or the end.
_NEGATABLE = ("port-forwarding", "agent-forwarding", "x11-forwarding", "touch-required", "verify-required")
_FLAGS = ("restrict", "cert-authority", *_NEGATABLE, "pty", "user-rc")
_NOT_NEGATABLE = ("restrict", "cert-authority")
_VALUES = ("command", "principals", "from", "expiry-time", "environment", "permitopen", "permitlisten", "tunnel")
_ONLY_ONCE = ("command", "from", "principals")
_MAX_ENVIRONMENT, _MAX_PERMITS = 1025, 4097  # auth-options.c counts before it adds
_LONGEST_HOST = 1024  # NI_MAXHOST
_LARGEST_TUNNEL = 0x7FFFFFFD
_BLANKS = " \t\n\v\f\r"  # isspace()

# Options that came later than 7.2 (release notes); an older sshd refuses a line that has one.
_FIRST = {
    "expiry-time": expiry_time.FIRST,
    "permitlisten": (7, 8),
    "touch-required": (8, 2),
    "no-touch-required": (8, 2),
    "verify-required": (8, 4),
    "no-verify-required": (8, 4),
}
# Tested with 9.2 and 10.0; between these the line is reported as accepted.
_FIRST_WITH_SHORT_LENGTHS = (10, 0)

_UNKNOWN = "sshd does not know one of its options"
_DAY = re.compile(r" *([0-9]+)")
_FORMS = {8: (4, 2, 2), 12: (4, 2, 2, 2, 2), 14: (4, 2, 2, 2, 2, 2)}
_LIMITS = ((0, 9999), (1, 12), (1, 31), (0, 23), (0, 59), (0, 61))  # strptime's
_NUMBER = re.compile(r"[+-]?[0-9]+")


class LineOptions(NamedTuple):
    """What the options of a line say. entries: name in lower case and value without quotes, None: a flag, in order;
    problem: why sshd refuses the line for them, whoever comes from wherever; ends_at: seconds since 1970, None: no end.
    """

    entries: Tuple[Tuple[str, Optional[str]], ...] = ()
    problem: Optional[str] = None
    ends_at: Optional[int] = None

    @property
    def cert_authority(self) -> bool:
        """Whether the line accepts the certificates that its key signed, and not its key."""
        return ("cert-authority", None) in self.entries


class ExpiryTime(NamedTuple):
    """The time in an expiry-time. fields: year to second, as written; utc: whether they are in UTC, not local time."""

    fields: Tuple[int, ...]
    utc: bool

    def seconds(self) -> Optional[int]:
        """Seconds since 1970, a local time by this machine's zone; None for a time that does not exist."""
        year, month, day, hour, minute, second = self.fields
        try:
            if self.utc:
                return calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))
            return int(time.mktime((year, month, day, hour, minute, second, 0, 0, 0)))
        except (ValueError, OverflowError):
            return None


def parse(options: str, *, version: Tuple[int, int] = (9, 2)) -> LineOptions:
    """The options of one line, as the sshd of this version of OpenSSH reads them."""
    utc_ends = version >= expiry_time.FIRST_IN_UTC
    entries: List[Tuple[str, Optional[str]]] = []
    counts: Dict[str, int] = {}
    ends_at: Optional[int] = None
    at = 0
    while at < len(options):
        name, end = _name(options, at)
        if version < _FIRST.get(name, version):
            return LineOptions(tuple(entries), _UNKNOWN, ends_at)
        value: Optional[str] = None
        if name in _VALUES:
            value, end = unquote_option(options, end)
            if value is None:
                return LineOptions(tuple(entries), f"the value of its option {name} is not in quotes")
            problem = _value_problem(name, value, counts.get(name, 0), version)
            counts[name] = counts.get(name, 0) + 1
            if problem is None and name == "expiry-time":
                moment = read_expiry_time(value, utc_ends=utc_ends)
                seconds = None if moment is None else moment.seconds()
                if seconds is None or seconds <= 0:
                    problem = _not_a_time(value, utc_ends)
                else:
                    ends_at = seconds if ends_at is None else min(ends_at, seconds)
            if problem is not None:
                return LineOptions((*entries, (name, value)), problem, ends_at)
        if name:
            entries.append((name, value))
        if end < len(options) and options[end] != ",":
            return LineOptions(tuple(entries), _UNKNOWN, ends_at)
        at = end + 1
    parsed = LineOptions(tuple(entries), None, ends_at)
    if "principals" in counts and not parsed.cert_authority:
        return parsed._replace(problem="its option principals is for certificate authorities alone")
    return parsed


def read_expiry_time(value: str, *, utc_ends: bool = True) -> Optional[ExpiryTime]:
    """The time in the value of an expiry-time; None where sshd does not accept it."""
    utc = False
    if utc_ends and len(value) > 1 and value[-1] in "zZ":
        value, utc = value[:-1], True
    elif utc_ends and len(value) > 3 and value[-3:].lower() == "utc":
        value, utc = value[:-3], True
    widths = _FORMS.get(len(value))
    if widths is None:
        return None
    fields: List[int] = []
    at = 0
    for width in widths:
        lowest, highest = _LIMITS[len(fields)]
        match = _DAY.fullmatch(value, at, at + width)
        if match is None or not lowest <= int(match.group(1)) <= highest:
            return None
        fields.append(int(match.group(1)))
        at += width
    return ExpiryTime((*fields, *([0] * (6 - len(fields)))), utc)


def _name(options: str, at: int) -> Tuple[str, int]:
    """The option that begins here, and where its name (or its =) ends; empty where none does."""
    # No name has more characters; the rest of the line is not copied for each option.
    text = options[at : at + 32].lower()
    negated = text[3:] if text.startswith("no-") else ""
    for flag in _FLAGS:
        if text.startswith(flag):
            return flag, at + len(flag)
        if negated.startswith(flag) and flag not in _NOT_NEGATABLE:
            return f"no-{flag}", at + 3 + len(flag)
    for name in _VALUES:
        if text.startswith(f"{name}="):
            return name, at + len(name) + 1
    return "", at


def _value_problem(name: str, value: str, before: int, version: Tuple[int, int]) -> Optional[str]:
    if name in _ONLY_ONCE and before:
        return f"its options hold {name} twice"
    if name == "from":
        return _from_problem(value, 128 if version < _FIRST_WITH_SHORT_LENGTHS else sys.maxsize)
    if name == "environment":
        variable, equals, _ = value.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_]+", variable) or before >= _MAX_ENVIRONMENT:
            return "its option environment sets nothing"
    if name in ("permitopen", "permitlisten") and (
        before >= _MAX_PERMITS or not _is_permit(value, bare_port=name == "permitlisten")
    ):
        return f"its option {name} names no host and port"
    if name == "tunnel" and value.lower() != "any":
        number = _number(value)
        if number is None or not 0 <= number <= _LARGEST_TUNNEL:
            return "its option tunnel names no device"
    return None


def _from_problem(value: str, longest: int) -> Optional[str]:
    """Why nobody can come in from anywhere by this list; None where somebody may. longest: a longer length is text."""
    allows = False
    for entry in value.split(","):
        negated = entry.startswith("!")
        pattern = entry[1:] if negated else entry
        if not pattern:
            return "its option from has an empty entry"
        if _is_wrong_network(pattern, longest):
            return "its option from has a network that is none"
        allows = allows or not negated
    return None if allows else "its option from allows nobody"


def _is_wrong_network(pattern: str, longest: int) -> bool:
    """Whether this is an address with a length that does not fit it (addr_pton_cidr: -2)."""
    address, slash, length = pattern.partition("/")
    if len(pattern) > 63 or not slash or not re.fullmatch(r"[0-9]+", length) or int(length) > longest:
        return False
    try:
        # As bytes: for text Python would load a module, which a process with another account's rights may not read.
        family, _, _, _, place = socket.getaddrinfo(address.encode("latin-1"), None, flags=socket.AI_NUMERICHOST)[0]
        packed = socket.inet_pton(family, str(place[0]).partition("%")[0])
    except (OSError, ValueError, UnicodeError):
        return False
    bits = 8 * len(packed)
    if int(length) > bits:
        return True
    return bool(int.from_bytes(packed, "big") & ((1 << (bits - int(length))) - 1))


def _is_permit(value: str, *, bare_port: bool) -> bool:
    """Whether a forwarding has a host and a port (hpdelim2, a2port)."""
    if bare_port and ":" not in value:
        value = f"*:{value}"
    if value.startswith("["):
        at = value.find("]") + 1
        if at == 0 or value[at : at + 1] not in (":", "/"):
            return False
    else:
        at = next((place for place, character in enumerate(value) if character in ":/"), -1)
        if at < 0:
            return False
    return at <= _LONGEST_HOST and _is_port(value[at + 1 :])


def _is_port(text: str) -> bool:
    if text == "*":
        return True
    number = _number(text)
    if number is not None and number <= 65535:
        return number > 0
    try:
        return bool(text) and "\0" not in text and socket.getservbyname(text, "tcp") > 0
    except (OSError, UnicodeError):
        return False


def _number(text: str) -> Optional[int]:
    """As strtonum(3) reads it, for numbers from 0; None for what is none."""
    text = text.lstrip(_BLANKS)
    if not _NUMBER.fullmatch(text) or len(text) > 30:
        return None
    number = int(text)
    return number if number >= 0 else None


def _not_a_time(value: str, utc_ends: bool) -> str:
    if not utc_ends and read_expiry_time(value) is not None:
        return "this sshd reads no expiry-time in UTC, and refuses the line"
    return "its expiry-time is not a time"
