"""What a caller says it saw: If-Match and If-None-Match, against tags of answers; must know no resource."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from starlette.requests import Request

from keyrack.errors import invalid
from keyrack.web.api import Call
from keyrack.web.native.shapes import Answer

CHANGING = ("PUT", "PATCH", "DELETE")
MOST_TAGS = 20
_TAG = re.compile(r'"[!#-~]{1,64}"')
_ANY = "*"


@dataclass(frozen=True, slots=True)
class Condition:
    """When a change may be made. tags: what it is to be, "*" for anything that is there; absent: where nothing is."""

    tags: frozenset[str]
    absent: bool = False

    def met_by(self, tag: str | None) -> bool:
        """Whether it holds; tag: of what is there, None for nothing."""
        if self.absent:
            return tag is None
        return tag is not None and (_ANY in self.tags or tag in self.tags)


def of(call: Call, method: str) -> Condition | None:
    """The condition of a call that changes something, None for none. Raises Refusal INVALID for a header that is none.

    If-None-Match takes * alone there: nothing is to be there yet.
    """
    if method not in CHANGING:
        return None
    headers = call.request.headers
    wanted, unwanted = headers.get("if-match"), headers.get("if-none-match")
    if wanted is not None:
        return Condition(_tags(wanted, "If-Match"))
    if unwanted is None:
        return None
    if unwanted.strip() != _ANY:
        raise invalid("If-None-Match", "With a change If-None-Match takes * alone.")
    return Condition(frozenset(), absent=True)


def unchanged(call: Call, answer: Answer) -> bool:
    """Whether the caller has this very answer already."""
    known = call.request.headers.get("if-none-match")
    # A tag that leaves fields out says nothing of them.
    if known is None or answer.untagged:
        return False
    tags = _tags(known.replace("W/", ""), "If-None-Match")
    return _ANY in tags or tag_of(answer) in tags


def tag_of(answer: Answer, content: bytes | None = None) -> str:
    """The tag of an answer; content: its JSON, where it is written already."""
    if content is None or answer.untagged:
        content = answer.__pydantic_serializer__.to_json(answer, exclude=set(answer.untagged) or None)
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def without(request: Request) -> Request:
    """The request without its conditions, for a look at what it names."""
    headers = [(name, value) for name, value in request.scope["headers"] if not name.startswith(b"if-")]
    return Request({**request.scope, "headers": headers, "method": "GET"})


def _tags(text: str, header: str) -> frozenset[str]:
    if text.strip() == _ANY:
        return frozenset((_ANY,))
    tags = [part.strip() for part in text.split(",")]
    if len(tags) > MOST_TAGS or not all(_TAG.fullmatch(tag) for tag in tags):
        raise invalid(header, f"{header} takes the ETag of an answer as it is, in its quotes, or *.")
    return frozenset(tags)
