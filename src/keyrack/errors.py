"""What the core can refuse: kind, code and words for a person; must know no HTTP status and no dialect."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """The few ways in which a request can fail; each dialect maps a kind to its own answer."""

    UNAUTHENTICATED = "unauthenticated"
    """Nobody, or somebody whose proof is not in force."""
    FORBIDDEN = "forbidden"
    """Known, but not allowed to do this."""
    MISSING = "missing"
    """No such thing, or not this caller's to see: the two are one answer."""
    INVALID = "invalid"
    """What was sent cannot be accepted as it stands."""
    TAKEN = "taken"
    """It would collide with something that exists."""
    CHANGED = "changed"
    """It is not any more what the caller saw when it decided."""
    LIMIT = "limit"
    """A bound of the instance is reached."""
    TOO_LARGE = "too-large"
    """More was sent than is read."""
    THROTTLED = "throttled"
    """Too many requests in too short a time."""
    UNAVAILABLE = "unavailable"
    """A part that is needed, such as the database, does not answer; later it may."""
    FAULT = "fault"
    """A fault of ours; trying again will not help."""


class Refusal(Exception):
    """The core's "no".

    kind: what sort of refusal it is; code: a stable slug for programs, e.g. ``label-taken``;
    message: one or two sentences for a person, with what to do next; field: the name of the core's
    argument that is at fault, if one is; retry_after: whole seconds, with kinds THROTTLED and UNAVAILABLE.
    """

    def __init__(self, kind: Kind, code: str, message: str, *, field: str | None = None, retry_after: int = 0) -> None:
        super().__init__(message)
        self.kind = kind
        self.code = code
        self.message = message
        self.field = field
        self.retry_after = retry_after


def missing(what: str) -> Refusal:
    """The refusal for a thing that does not exist or is not the caller's to see; what: "server", "key" …"""
    return Refusal(Kind.MISSING, f"{what.replace(' ', '-')}-missing", f"There is no such {what}.")


def invalid(field: str, message: str, code: str = "invalid") -> Refusal:
    """The refusal of one argument; field: the core's name of it."""
    return Refusal(Kind.INVALID, code, message, field=field)
