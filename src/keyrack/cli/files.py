"""Files that a command is given, read within bounds; must not know what stands in them."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import click

LARGEST = 64 * 1024 * 1024
LARGEST_KEY = 64 * 1024


def standard_input() -> BinaryIO:
    """Standard input, which - stands for; raises ClickException with words if it is closed."""
    if sys.stdin is None:
        raise click.ClickException("Standard input is closed; name a file.")
    return sys.stdin.buffer


def text_of(file: Path | None, *, most: int | None = None, otherwise: str = "It takes a text file.") -> str:
    """The text of a file, without the byte order mark that some editors write. Raises ClickException with words.

    file: None for standard input; most: the bytes that are read at most, None for LARGEST, as a device has no
    end; otherwise: the sentence that says what to give instead.
    """
    most = LARGEST if most is None else most
    named = "Standard input" if file is None else str(file)
    try:
        with nullcontext(standard_input()) if file is None else file.open("rb") as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise click.ClickException(f"{named} is longer than {most} bytes. {otherwise}")
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise click.ClickException(f"{named} is not UTF-8 text. {otherwise}") from None
    except OSError as error:
        raise click.ClickException(f"{named} cannot be read: {error.strerror}.") from None
