"""What is wrong with a workspace file, in words that name the place; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keyrack.errors import Kind, Refusal

SHOWN_FAULTS = 20
NOTHING = "Nothing was applied."


def wrong(place: str, message: str) -> Refusal:
    """The refusal of a file as a whole; place: where in it, "" for all of it."""
    words = f"{place}: {message}" if place else message[:1].upper() + message[1:]
    return Refusal(Kind.INVALID, "file-invalid", f"{NOTHING} {words.rstrip('.')}.")


class Faults:
    """What is wrong with a file, one fault an entry, so that all of it can be mended at once."""

    def __init__(self) -> None:
        self._faults: list[Refusal] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Go on behind an entry that is wrong."""
        try:
            yield
        except Refusal as refusal:
            if refusal.code != "file-invalid":
                raise
            self.add(refusal)

    def add(self, fault: Refusal) -> None:
        """Keep a fault for later."""
        self._faults.append(fault)

    def refuse(self) -> None:
        """Raise what was found, the first twenty, if there is anything."""
        if len(self._faults) == 1:
            raise self._faults[0]
        if self._faults:
            lines = [one.message.removeprefix(f"{NOTHING} ") for one in self._faults[:SHOWN_FAULTS]]
            more = len(self._faults) - len(lines)
            lines += [f"And {more} more."] if more else []
            raise Refusal(Kind.INVALID, "file-invalid", "\n  ".join((f"{NOTHING} These are wrong:", *lines)))


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Say where in the file it was that the core refused something."""
    try:
        yield
    except Refusal as refusal:
        if refusal.code == "file-invalid":
            raise
        field = f"{refusal.field}: " if refusal.field else ""
        raise wrong(place, field + refusal.message) from None
