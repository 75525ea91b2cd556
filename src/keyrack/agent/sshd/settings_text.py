"""Reads the text of sshd's settings with the files that it includes, for what no single answer of sshd shows; must not
ask sshd.

That is: which rules there are for other accounts and addresses (sshd_config(5), Match), how a name with blanks or
quotes is written, and which files count.
"""

from __future__ import annotations

import functools
import glob
import os
import re
import stat
from typing import Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from keyrack.ssh.quotes import setting_word

CONFIG_FOLDER = "/etc/ssh"  # which a relative path of Include is below
PLACE_CRITERIA = ("address", "host", "localaddress", "localport", "rdomain")  # of a Match, beside those on accounts
_DEEPEST_INCLUDE = 16
_LARGEST_CONFIG = 1 << 20
_LINE = re.compile(r'[ \t\r]*("?)([A-Za-z][A-Za-z0-9]*)\1(?:[ \t\r]*=[ \t\r]*|[ \t\r]+)(.*)')
_BEHIND_NUL = re.compile("\0[^\n]*\n?[ \t\r]*")  # sshd ignores this part of a line (load_server_config)
_GLOB = re.compile(r"\\(.)|\[\^")
_WITHOUT_VALUE = ("all", "canonical", "final", "invalid-user")  # criteria of a Match
_NAME = re.compile(r"[a-z0-9_.@+-]+")  # of a user, with no pattern (*, ?, !) in it
_PORT = re.compile(r"(?:[^:]*:|\[[^]]*\]:)?([0-9]{1,5})")  # alone, or after an address


class SettingLine(NamedTuple):
    """One setting as it is written: keyword in lower case, and its values."""

    keyword: str
    values: Tuple[str, ...]


def split_values(text: str) -> Tuple[str, ...]:
    """The values of a setting, split as sshd does (misc.c, argv_split); what follows # is a comment.

    Quotes, of either kind, may begin and end within a word.
    """
    values: List[str] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        if text[at] == "#":
            break
        word, at = setting_word(text, at)
        values.append(word)
    return tuple(values)


# A scan reads the same few files dozens of times.
@functools.lru_cache(maxsize=32)
def read_lines(text: str) -> Tuple[SettingLine, ...]:
    """The settings in one text."""
    matches = (_LINE.match(raw.rstrip(" \t\r\f")) for raw in _BEHIND_NUL.sub("", text).split("\n"))
    return tuple(SettingLine(match.group(2).lower(), split_values(match.group(3))) for match in matches if match)


def criteria(values: Sequence[str]) -> Iterator[Tuple[str, str]]:
    """The criteria of a Match: each keyword in lower case and its value, empty where it has none. The two may be one
    word, with = between them (OpenSSH 9.9).
    """
    waiting = list(values)
    while waiting:
        keyword, equals, value = waiting.pop(0).partition("=")
        if not equals and keyword.lower() not in _WITHOUT_VALUE and waiting:
            value = waiting.pop(0)
        yield keyword.lower(), value


def match_keywords(lines: Iterable[SettingLine]) -> Set[str]:
    """The keyword of every criterion of every Match, such as user or address."""
    return {keyword for line in lines if line.keyword == "match" for keyword, _ in criteria(line.values)}


def matched_users(lines: Iterable[SettingLine]) -> Optional[Set[str]]:
    """The users that Match rules name, in lower case; None where a rule may tell users apart in other ways (patterns,
    groups, or unknown criteria).
    """
    users: Set[str] = set()
    for keyword, value in (pair for line in lines if line.keyword == "match" for pair in criteria(line.values)):
        names = value.lower().split(",")
        if keyword == "user" and all(map(_NAME.fullmatch, names)):
            users.update(names)
        elif keyword not in ("all", *PLACE_CRITERIA):
            return None
    return users


def matched_sources(lines: Iterable[SettingLine]) -> List[str]:
    """The values of address and host of every Match, each once: lists of addresses, networks, names and patterns."""
    asked = (pair for line in lines if line.keyword == "match" for pair in criteria(line.values))
    return list(dict.fromkeys(value for keyword, value in asked if keyword in ("address", "host")))


def names_hosts(lines: Iterable[SettingLine]) -> bool:
    """Whether sshd asks the DNS for the names of clients (UseDNS)."""
    said = (line.values for line in lines if line.keyword == "usedns")
    return next(said, ())[:1] == ("yes",)


def local_port(lines: Sequence[SettingLine]) -> List[str]:
    """The word of -C for the port, where a rule asks for it: without it sshd does not answer at all."""
    if "localport" not in match_keywords(lines):
        return []
    said = [
        line.values[0] for word in ("port", "listenaddress") for line in lines if line.keyword == word and line.values
    ]
    ports = [match.group(1) for match in map(_PORT.fullmatch, said) if match]
    return [f"lport={ports[0] if ports else '22'}"]


def lines_in(path: str, depth: int = 0, rule: Tuple[str, ...] = ()) -> Iterator[SettingLine]:
    """The settings of a file. rule: the criteria of the Match that the file is included below: a Match in the file
    applies only within it, and ends with the file, so the outer one is repeated after it.
    """
    here = rule
    for line in read_lines(_text(path)):
        if line.keyword == "match":
            here = (*rule, *line.values)
            yield SettingLine("match", here)
        elif line.keyword == "include" and depth < _DEEPEST_INCLUDE:
            for included in _matches(line.values):
                inside = list(lines_in(included, depth + 1, here))
                yield from inside
                if any(one.keyword == "match" for one in inside):
                    yield SettingLine("match", here or ("all",))
        else:
            yield line


def included_paths(path: str, depth: int = 0) -> Iterator[str]:
    """Included files, and the folders in which another one could appear."""
    if depth >= _DEEPEST_INCLUDE:
        return
    for line in read_lines(_text(path)):
        if line.keyword == "include":
            for pattern in line.values:
                yield os.path.dirname(os.path.join(CONFIG_FOLDER, pattern))
            for included in _matches(line.values):
                yield included
                yield from included_paths(included, depth + 1)


def signature(config: str) -> Tuple[object, ...]:
    """A value that changes whenever a file of these settings does, or one that they could include appears."""
    stamps: List[object] = []
    for path in [config, *included_paths(config)]:
        try:
            status = os.stat(path)
        except OSError:
            stamps.append((path, None))
            continue
        if stat.S_ISDIR(status.st_mode):
            # The names in a folder, not its time of change: a key file beside the settings changes with each key.
            stamps.append((path, tuple(sorted(name for name in os.listdir(path) if not name.startswith(".")))))
        else:
            stamps.append((path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    return tuple(stamps)


def _matches(patterns: Sequence[str]) -> List[str]:
    paths = (os.path.join(CONFIG_FOLDER, _GLOB.sub(_as_here, pattern)) for pattern in patterns)
    return [path for pattern in paths for path in sorted(glob.glob(pattern))]


def _as_here(match: "re.Match[str]") -> str:
    """Translate what glob(3) knows and Python's glob does not: a backslash that escapes a character, and [^…]."""
    return "[!" if match.group(1) is None else glob.escape(match.group(1))


def _text(path: str) -> str:
    try:
        # O_NONBLOCK: opening a pipe that somebody put there must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        # Unchanged: to sshd only \n ends a line, and a name need not be UTF-8.
        with open(descriptor, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read(_LARGEST_CONFIG) if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""
    except OSError:
        return ""


def is_large(path: str) -> bool:
    """Whether a file is so large that only its beginning is read here."""
    return os.path.isfile(path) and os.path.getsize(path) > _LARGEST_CONFIG
