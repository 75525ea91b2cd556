"""Lists as the `keyrack` command prints them, in columns or as JSON; must ask for nothing by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import click

from keyrack.cli.output.shown import say
from keyrack.model import Page
from keyrack.ssh.printable import printable

T = TypeVar("T")

# How many items are fetched at once.
PAGE_SIZE = 500

as_json = click.option("--json", "json_wanted", is_flag=True, help="For programs: a JSON list of objects.")
as_json_object = click.option("--json", "json_wanted", is_flag=True, help="For programs: one JSON object.")


def every(ask: Callable[[int], Page[T]]) -> Iterator[T]:
    """All items of a list that comes in pages; ask: the page that starts at an offset."""
    offset = 0
    while True:
        page = ask(offset)
        yield from page.items
        offset += len(page.items)
        if not page.items or offset >= page.total:
            return


class _Nothing(str):
    """What a column shows for nothing; in JSON it is null, while a text `-` stays a text."""


NOTHING = _Nothing("-")


def dash(value: object) -> object:
    """A value in a column: NOTHING for none."""
    return NOTHING if value in (None, "", [], {}) else value


def objects(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> list[dict[str, object]]:
    """Rows as JSON has them: each field has the name of its column, in small letters; NOTHING is null."""
    names = [title.lower().replace(" ", "_") for title in titles]
    return [dict(zip(names, (None if cell is NOTHING else cell for cell in row), strict=True)) for row in rows]


def show_json(value: object) -> None:
    """JSON for programs; ASCII alone, so that nothing in it acts on a terminal."""
    click.echo(json.dumps(value, indent=1))


def table(titles: Sequence[str], rows: Sequence[Sequence[object]], json_wanted: bool = False) -> None:
    """Columns as wide as they must be, titles alone when there is nothing; or the same as JSON objects."""
    if json_wanted:
        show_json(objects(titles, rows))
        return
    shown = [tuple(titles), *(tuple(printable(str(value)) for value in row) for row in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(titles))]
    for row in shown:
        say("  ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)).rstrip())
