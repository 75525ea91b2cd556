"""What the models of all resources are made of: their kinds, types of fields, pages; must know no resource."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from keyrack.core import cursors, lifetimes
from keyrack.core.lifetimes import LifetimeError
from keyrack.model import Page
from keyrack.web import bodies
from keyrack.web.examples import FINGERPRINT, PUBLIC_KEY

T = TypeVar("T")
S = TypeVar("S")

PER_PAGE = 50
MAX_PER_PAGE = 200
_END = "2026-11-22T16:00:00Z"


class Request(BaseModel):
    """The body of a call: values are not converted to other types, and unknown fields are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class KeyRequest(Request):
    """The body of a call that takes a public key, as public_key; publicKey, as RunCloud's API calls it, is the same."""

    @model_validator(mode="before")
    @classmethod
    def _either_spelling(cls, sent: Any) -> Any:
        """What was sent, with the key as public_key."""
        if not isinstance(sent, Mapping) or "publicKey" not in sent or "public_key" in sent:
            return sent
        return {"public_key" if name == "publicKey" else name: value for name, value in sent.items()}


class Query(BaseModel):
    """The query of a call, whose values arrive as texts; unknown parameters are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_by_name=False, defer_build=True
    )


class Answer(BaseModel):
    """The answer of a call. mypy checks its fields; checking them again at run time costs nothing measurable, as
    pydantic writes JSON faster than json.dumps (decision 115).
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)
    untagged: ClassVar[frozenset[str]] = frozenset()
    """Fields that the ETag leaves out, as nobody sets them, such as what a host reports of itself."""


def parameter_names(asks: type[BaseModel]) -> tuple[str, ...]:
    """A query's parameters as they are written in it."""
    return tuple(field.alias or name for name, field in asks.model_fields.items())


def about(words: str, *example: Any) -> Any:
    """What a field means, for the description, and an example where its type has none."""
    return Field(description=words, examples=list(example)) if example else Field(description=words)


def time(at: datetime) -> str:
    """A time in UTC by ISO 8601 to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def time_or_null(at: datetime | None) -> str | None:
    """The same, or null."""
    return None if at is None else time(at)


def _moment(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    try:
        return lifetimes.moment(value if isinstance(value, str) else "")
    except LifetimeError as problem:
        raise PydanticCustomError("time", "{problem}", {"problem": str(problem)}) from None


def _whole(most: int, *, default: int | None) -> Any:
    """A whole number from 1 to most in a query; default: where it is sent without a value."""

    def read(value: object) -> int | None:
        number = default if value == "" else bodies.number(value) if isinstance(value, str) else value
        if number is None and default is None and value in ("", None):
            return None
        if not isinstance(number, int) or not 1 <= number <= most:
            raise PydanticCustomError("whole", "is a whole number from 1 to {most}", {"most": most})
        return number

    return WrapValidator(lambda value, handler: read(value))


def _from_1_to(most: int) -> Any:
    return WithJsonSchema({"type": "integer", "minimum": 1, "maximum": most})


PageNumber = Annotated[int, _whole(bodies.LARGEST_ID, default=1), _from_1_to(bodies.LARGEST_ID)]
PerPage = Annotated[int, _whole(MAX_PER_PAGE, default=PER_PAGE), _from_1_to(MAX_PER_PAGE)]
MAX_DAYS = 36_500
Days = Annotated[int, _whole(MAX_DAYS, default=1), _from_1_to(MAX_DAYS)]
"""Days in a query."""
IdAsked = Annotated[int | None, _whole(bodies.LARGEST_ID, default=None), _from_1_to(bodies.LARGEST_ID)]
"""An id in a query, or none."""
Id = Annotated[int, Field(examples=[7])]
Name = Annotated[str, Field(examples=["web-1"])]
Count = Annotated[int, Field(examples=[3])]
Flag = Annotated[bool, Field(examples=[True])]
Time = Annotated[str, Field(examples=[_END], json_schema_extra={"format": "date-time"})]
"""A time in an answer: UTC, ISO 8601."""
Moment = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time", "examples": [_END]})
]
"""A time in a body: RFC 3339, with its zone."""
_LIFETIME = {"type": "string", "examples": [_END, "12h"]}
End = Annotated[str, WithJsonSchema(_LIFETIME)]
"""An end in a body: a time by RFC 3339 with its zone, or a span from now on; the core reads it."""
EndOrNone = Annotated[End | None, about("When it ends: a time with its zone, or a span; none for no end.", None)]
DurationOrNone = Annotated[End | None, about("For how long, instead of expires_at.", "12h")]
Fingerprint = Annotated[str, Field(examples=[FINGERPRINT])]
PlusKept = BeforeValidator(lambda value: value.replace(" ", "+") if isinstance(value, str) else value)
"""For a text in a query that may hold + but no space: a + that was not encoded as %2B arrives as a space."""
PublicKey = Annotated[str, Field(examples=[PUBLIC_KEY])]
_FLAG = {"type": "boolean"}
_TEXTS = {"type": "array", "items": {"type": "string"}}
_PERMISSION = {"type": ["boolean", "null"]}
Restrictions = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "sources": _TEXTS,
                "command": {"type": ["string", "null"]},
                "restrict": _FLAG,
                "permit_pty": _PERMISSION,
                "agent_forwarding": _PERMISSION,
                "port_forwarding": _PERMISSION,
                "x11_forwarding": _PERMISSION,
                "user_rc": _PERMISSION,
                "permitopen": _TEXTS,
                "permitlisten": _TEXTS,
                "verify_required": _FLAG,
                "no_touch_required": _FLAG,
            },
            "additionalProperties": False,
            "examples": [{"sources": ["192.0.2.0/24"]}],
        }
    ),
]
"""What a key may do: the fields of ssh.options.Restrictions, which reads them and says what is wrong."""


class Window(Query):
    """Which page of a list: by number, or by cursor, which costs the same at every place."""

    page: Annotated[PageNumber, about("Which page, from 1.", 1)] = 1
    per_page: Annotated[PerPage, about("How many a page holds: 1 to 200.", PER_PAGE)] = PER_PAGE
    cursor: Annotated[
        str | None, about("Instead of page: `next` of the page before; empty for the first page.", "")
    ] = None

    def window(self) -> dict[str, Any]:
        """Offset, limit and cursor, as the core's functions take them."""
        return {"offset": (self.page - 1) * self.per_page, "limit": self.per_page, "cursor": self.cursor}


class Search(Window):
    """A page of what matches a text."""

    search: Annotated[str, about("Only what contains this text.", "web")] = ""


class CursorWindow(Query):
    """Which page of a list that goes by cursor alone, as it is too costly to count."""

    cursor: Annotated[str, about("`next` of the page before; empty for the first page.", "")] = ""
    per_page: Annotated[PerPage, about("How many a page holds: 1 to 200.", PER_PAGE)] = PER_PAGE


NextCursor = Annotated[str | None, about("The cursor of the next page; null at the end.", None)]
"""In an answer to a CursorWindow."""


class Listed(Answer, Generic[T]):
    """A page of a list."""

    items: Annotated[list[T], about("What the page holds.")]
    total: Annotated[int | None, about("How many there are on all pages; null in a page by cursor.", 1)]
    page: Annotated[int, about("Which page this is, from 1.", 1)]
    per_page: Annotated[int, about("How many a page holds.", PER_PAGE)]
    next: Annotated[str | None, about("The cursor of the next page, in a page by cursor; null at the end.", None)]

    @classmethod
    def of(cls, page: Page[S], show: Callable[[S], T]) -> Self:
        """A page of the core's as it is shown; show: one entry."""
        return cls(
            items=[show(item) for item in page.items],
            total=page.total if page.counted else None,
            page=page.offset // page.limit + 1,
            per_page=page.limit,
            next=None if page.after is None else cursors.write(page.after),
        )


class ErrorFields(Answer):
    """What was refused, and why."""

    code: Annotated[str, about("The kind of error, for programs.", "invalid")]
    message: Annotated[str, about("What is wrong, for people.", "mode takes observe, enforce or auto.")]
    field: Annotated[str, about("The field or parameter at fault, if one is.", "mode")] = ""
    hint: Annotated[str, about("What to do next, where that is known.", "GET /servers lists which there are.")] = ""


class Error(Answer):
    """A refusal."""

    error: Annotated[ErrorFields, about("The refusal.")]
