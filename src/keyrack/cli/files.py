"""Files that a command is given, read within bounds; must not know what stands in them."""

from __future__ import annotations

from pathlib import Path

import click

LARGEST = 64 * 1024 * 1024
LARGEST_KEY = 64 * 1024


def text_of(file: Path, *, most: int | None = None, otherwise: str = "It takes a text file.") -> str:
    """What a text file holds, of at most so many bytes, None for LARGEST: a device gives them without an end.

    otherwise: what to give instead, for whoever gave something else. Raises ClickException with words.
    """
    most = LARGEST if most is None else most
    try:
        with file.open("rb") as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise click.ClickException(f"{file} is longer than {most} bytes. {otherwise}")
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not UTF-8 text. {otherwise}") from None
    except OSError as error:
        raise click.ClickException(f"{file} cannot be read: {error.strerror}.") from None
