"""What a command's calls look like, over HTTP and on the data alike; must know neither of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import click

OF_KEYS = ("public_key", "publicKey")
"""Fields that a message need not name: "This is a private key." says it by itself."""
PAGE_SIZE = 200
"""How many items are asked for at once: the most that the API gives."""


class CallRefused(click.ClickException):
    """A call was refused, with words for people; status as in HTTP, code for programs. The command ends with 1."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.advised = False

    def with_advice(self, words: str) -> CallRefused:
        """The same, with what to do next."""
        advised = CallRefused(self.status, self.code, f"{self.message} {words}")
        advised.advised = True
        return advised


def naming(message: str, field: object) -> str:
    """A refusal's message; one that begins with "This" gets its field's name in front, as a command shows no field."""
    if isinstance(field, str) and field not in ("", *OF_KEYS) and message.startswith("This "):
        return f"{field}: {message}"
    return message


class Calls(ABC):
    """Where a command's calls go. Answers have one shape, whichever way they go: docs/api/keyrack.md."""

    @abstractmethod
    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        """One call: path below /api/keyrack/v1, query without what is None; answers the JSON, None for an empty one.

        Raises CallRefused, and Unreachable where there was no answer.
        """

    @abstractmethod
    def now(self) -> datetime:
        """The time by the clock of whoever answers, in UTC."""

    def every(self, path: str, query: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """All items of a list that comes in pages, one page after the other as they are looked at."""
        cursor: str | None = ""
        while cursor is not None:
            page = self.ask("GET", path, query={**(query or {}), "cursor": cursor, "per_page": PAGE_SIZE})
            yield from page["items"]
            cursor = page["next"]


def texts(query: Mapping[str, Any] | None) -> dict[str, str]:
    """A query as it is written in an address; what is None is left out."""
    given = {name: value for name, value in (query or {}).items() if value is not None}
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
