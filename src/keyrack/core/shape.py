"""What a pydantic model refuses, as place and words for people; must repeat nothing of what was sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

UNKNOWN = "extra_forbidden"
_TAKES = {
    "string_type": "a text",
    "string_sub_type": "a text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that a model refuses.

    place: names and positions from the outside in; kind: pydantic's name of it; words: what the field takes, such as
    "takes true or false", to be put after its name.
    """

    place: tuple[str | int, ...]
    kind: str
    words: str

    @property
    def field(self) -> str:
        """The outermost field; "" where the whole value is wrong."""
        return str(self.place[0]) if self.place else ""

    @property
    def path(self) -> str:
        """The place as one text, such as servers.0."""
        return ".".join(map(str, self.place))


def faults(error: ValidationError) -> tuple[Fault, ...]:
    """What a model refuses, unknown names first; for a field of several types one fault names them all."""
    by_field: dict[tuple[str, str], Fault] = {}
    rows = error.errors(include_url=False, include_input=False)
    for row in sorted(rows, key=lambda row: row["type"] != UNKNOWN):
        place = tuple(row["loc"])
        fault = Fault(place, row["type"], _words(row["type"], row["msg"], row.get("ctx") or {}))
        key = (fault.field, fault.path if row["type"] == UNKNOWN else "")
        before = by_field.get(key)
        if before is None:
            by_field[key] = fault
        elif before.kind in _TAKES and fault.kind in _TAKES and before.words != fault.words:
            by_field[key] = Fault(place[:1], before.kind, f"{before.words} or {_TAKES[fault.kind]}")
    return tuple(by_field.values())


def _words(kind: str, message: str, context: dict[str, Any]) -> str:
    if kind in _TAKES:
        return f"takes {_TAKES[kind]}"
    if kind == "missing":
        return "is needed"
    if kind == UNKNOWN:
        return "is not known here"
    if kind in ("literal_error", "enum"):
        return f"takes {str(context['expected']).replace(chr(39), '')}"
    if kind == "greater_than_equal":
        return f"is at least {context['ge']}"
    if kind == "less_than_equal":
        return f"is at most {context['le']}"
    if kind == "too_long":
        return f"holds at most {context['max_length']} entries"
    if kind == "too_short":
        return f"holds at least {context['min_length']} entries"
    if kind == "string_too_long":
        return f"has at most {context['max_length']} characters"
    if kind == "string_too_short":
        return f"has at least {context['min_length']} characters"
    return message[:1].lower() + message[1:].rstrip(".")
