"""What is wrong with a workspace file, in words that name the place; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from keyrack.errors import Kind, Refusal

SHOWN_FAULTS = 20
NOTHING = "Nothing was applied."


def wrong(place: str, message: str) -> Refusal:
    """The refusal of a file; place: where in it, "" for the file as a whole."""
    words = f"{place}: {message}" if place else message[:1].upper() + message[1:]
    return Refusal(Kind.INVALID, "file-invalid", f"{NOTHING} {words.rstrip('.')}.")


class Faults:
    """What is wrong with a file, one fault for each entry, so that all can be mended at once."""

    def __init__(self) -> None:
        self._faults: list[Refusal] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Collect the fault of an entry, and go on after it."""
        try:
            yield
        except Refusal as refusal:
            if refusal.code != "file-invalid":
                raise
            self.add(refusal)

    def add(self, fault: Refusal) -> None:
        """Collect a fault."""
        self._faults.append(fault)

    def refuse(self) -> None:
        """Raises Refusal INVALID with the faults so far, the first twenty of many, if there are any."""
        if len(self._faults) == 1:
            raise self._faults[0]
        if self._faults:
            lines = [one.message.removeprefix(f"{NOTHING} ") for one in self._faults[:SHOWN_FAULTS]]
            more = len(self._faults) - len(lines)
            lines += [f"And {more} more."] if more else []
            raise Refusal(Kind.INVALID, "file-invalid", "\n  ".join((f"{NOTHING} These are wrong:", *lines)))


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Add the place in the file to what the core refuses."""
    try:
        yield
    except Refusal as refusal:
        if refusal.code == "file-invalid":
            raise
        field = f"{refusal.field}: " if refusal.field else ""
        raise wrong(place, field + refusal.message) from None
