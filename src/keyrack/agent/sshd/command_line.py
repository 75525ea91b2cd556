"""Reads the options that an sshd was started with, which override its settings files; it asks and judges nothing.

RHEL 8 sets ciphers and key types there, EC2 Instance Connect a program that prints keys, many hosts a port. Since 8.2 a
listening sshd overwrites its command line with a title, which does not show where an argument ends: all words up to the
next option are taken as the value of an -o.
"""

from __future__ import annotations

import os
import re
from typing import Iterable, List, NamedTuple, Tuple

_TITLE = re.compile(r"[^ ]+: (.*?)(?: \[listener\] [0-9]+ of [0-9]+-[0-9]+ startups)?", re.DOTALL)
_WITH_VALUE = "CEbcfghkopu"  # of sshd's getopt(3)
_OPTION = re.compile(r"-[A-Za-z46]")
# Options that are passed on to `sshd -T`: settings, ports, address families, host keys.
_SETTINGS = ("o", "p", "4", "6", "h")
_LARGEST = 1 << 20


class CommandLine(NamedTuple):
    """The command line of an sshd. options: letter and value, in their order; program: argument 0, by which sshd
    restarts itself; perhaps_files: words after -o AuthorizedKeysFile that may be more files of it or arguments of their
    own, which a title does not tell apart.
    """

    options: Tuple[Tuple[str, str], ...] = ()
    program: str = ""
    perhaps_files: Tuple[str, ...] = ()

    @property
    def config(self) -> str:
        """The settings file as it was given (-f); empty where none was."""
        return next((value for letter, value in reversed(self.options) if letter == "f"), "")

    @property
    def settings(self) -> Tuple[str, ...]:
        """The arguments with which `sshd -T` answers by the same settings as this sshd."""
        arguments: List[str] = []
        for letter, value in self.options:
            if letter in _SETTINGS:
                arguments += [f"-{letter}", value] if value else [f"-{letter}"]
        return tuple(arguments)


def of(pid: int) -> CommandLine:
    """The command line of a running process; an empty one where it cannot be read."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            data = os.fsdecode(file.read(_LARGEST))
    except OSError:
        return CommandLine()
    words = data.rstrip("\0").split("\0")
    title = _TITLE.fullmatch(words[0].strip()) if len(words) == 1 or not words[1].strip() else None
    if title is not None:
        program, *given = title.group(1).split(" ")
        return read(given, bounded=False)._replace(program=program)
    return read(words[1:])._replace(program=words[0])


def read(words: Iterable[str], *, bounded: bool = True) -> CommandLine:
    """The command line from the words after the program's name. bounded: each word is one argument; False for the words
    of a title.
    """
    waiting = [word for word in words if bounded or word]
    options: List[Tuple[str, str]] = []
    perhaps: List[str] = []
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-") or word in ("-", "--"):
            break
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter not in _WITH_VALUE:
                options.append((letter, ""))
                continue
            value, letters = letters or (waiting.pop(0) if waiting else ""), ""
            if not bounded and letter == "o":
                value = _whole(value, waiting)
                if value.lower().startswith("authorizedkeysfile"):
                    perhaps += waiting
            options.append((letter, value))
    return CommandLine(tuple(options), perhaps_files=tuple(dict.fromkeys(perhaps)))


def as_written(settings: Iterable[str]) -> str:
    """These arguments (CommandLine.settings) as lines of a settings file."""
    words = list(settings)
    pairs = [(words[at], words[at + 1]) for at in range(len(words) - 1)]
    lines = [value for option, value in pairs if option == "-o"]
    return "\n".join(lines + [f"Port {value}" for option, value in pairs if option == "-p"])


def _whole(value: str, waiting: List[str]) -> str:
    """The value of an -o in a title: its first word, and those of the following words that belong to it."""
    if waiting and "=" not in value:
        value = f"{value} {waiting.pop(0)}"
    while waiting and not _OPTION.match(waiting[0]):
        value = f"{value} {waiting.pop(0)}"
    return value
