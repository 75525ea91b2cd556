"""Reads what an sshd was started with, as far as it changes what its files say; it asks and judges nothing.

RHEL 8 gives its sshd ciphers and key types there, EC2 Instance Connect a program that names keys, many hosts a port.
From 8.2 on a listener writes a title over its command line, in which the words stand without their bounds: what belongs
to one -o is taken to reach as far as the next option.
"""

from __future__ import annotations

import os
import re
from typing import Iterable, List, NamedTuple, Tuple

_TITLE = re.compile(r"[^ ]+: (.*?)(?: \[listener\] [0-9]+ of [0-9]+-[0-9]+ startups)?", re.DOTALL)
_WITH_VALUE = "CEbcfghkopu"  # of sshd's getopt(3)
_OPTION = re.compile(r"-[A-Za-z46]")
# What `sshd -T` can be asked with: settings, ports, families of addresses, host keys.
_SETTINGS = ("o", "p", "4", "6", "h")
_LARGEST = 1 << 20


class CommandLine(NamedTuple):
    """options: letter and value, in their order; program: as it was named, by which sshd starts itself anew;
    perhaps_files: words behind AuthorizedKeysFile that may be files of it, as a title tells them not from options.
    """

    options: Tuple[Tuple[str, str], ...] = ()
    program: str = ""
    perhaps_files: Tuple[str, ...] = ()

    @property
    def config(self) -> str:
        """The file of settings, as it is named there; empty where none is."""
        return next((value for letter, value in reversed(self.options) if letter == "f"), "")

    @property
    def settings(self) -> Tuple[str, ...]:
        """The arguments that have another sshd answer as this one would."""
        arguments: List[str] = []
        for letter, value in self.options:
            if letter in _SETTINGS:
                arguments += [f"-{letter}", value] if value else [f"-{letter}"]
        return tuple(arguments)


def of(pid: int) -> CommandLine:
    """Of a process that runs; empty where that cannot be read."""
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
    """From the words behind the program's name. bounded: each is one argument, as it was given."""
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
    """The same as lines of a file of settings."""
    words = list(settings)
    pairs = [(words[at], words[at + 1]) for at in range(len(words) - 1)]
    lines = [value for option, value in pairs if option == "-o"]
    return "\n".join(lines + [f"Port {value}" for option, value in pairs if option == "-p"])


def _whole(value: str, waiting: List[str]) -> str:
    """A setting of several words, of which the first is known."""
    if waiting and "=" not in value:
        value = f"{value} {waiting.pop(0)}"
    while waiting and not _OPTION.match(waiting[0]):
        value = f"{value} {waiting.pop(0)}"
    return value
