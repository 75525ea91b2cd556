"""What a caller says it saw: If-Match and If-None-Match, against tags of answers; must know no resource."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from starlette.requests import Request

from keyrack.errors import invalid
from keyrack.web.api import Call
from keyrack.web.native.shapes import Answer

CHANGING = ("POST", "PUT", "PATCH", "DELETE")
MOST_TAGS = 20
_TAG = re.compile(r'(W/)?("[!#-~\x80-\xff]*")')
_TAGS = re.compile(rf"{_TAG.pattern}(?:[ \t]*,[ \t]*{_TAG.pattern})*")
_ANY = "*"
_WEAK = (
    "A weak tag (W/) says nothing here. Where a proxy on the way made the answer's tag weak, as some do when they "
    "compress, send it without W/."
)


@dataclass(frozen=True, slots=True)
class Condition:
    """When a change may be made. tags: what it is to be, "*" for anything that is there; absent: where nothing is.

    words: what is said where it does not hold, None for what is said of any.
    """

    tags: frozenset[str]
    absent: bool = False
    words: str | None = None

    def met_by(self, tag: str | None) -> bool:
        """Whether it holds; tag: of what is there, None for nothing."""
        if self.absent:
            return tag is None
        return tag is not None and (_ANY in self.tags or tag in self.tags)


def of(call: Call, method: str) -> Condition | None:
    """The condition of a call that changes something, None for none. Raises Refusal INVALID for a header that is none.

    If-None-Match takes * alone there: nothing is to be there yet. A weak tag matches nothing (RFC 9110, 13.1.1).
    """
    if method not in CHANGING:
        return None
    headers = call.request.headers
    wanted, unwanted = headers.get("if-match"), headers.get("if-none-match")
    if wanted is not None:
        tags = _tags(wanted, "If-Match")
        strong = frozenset(tag for tag, weak in tags.items() if not weak)
        return Condition(strong, words=None if strong else _WEAK)
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
    tags = _tags(known, "If-None-Match")
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


def _tags(text: str, header: str) -> dict[str, bool]:
    """The tags of a header, without W/, and whether each is weak alone."""
    if text.strip() == _ANY:
        return {_ANY: False}
    names = _TAG.findall(text) if _TAGS.fullmatch(text.strip(" \t")) else []
    if not 0 < len(names) <= MOST_TAGS:
        raise invalid(header, f"{header} takes the ETag of an answer as it is, in its quotes, or *.")
    tags: dict[str, bool] = {}
    for weak, tag in names:
        tags[tag] = tags.get(tag, True) and bool(weak)
    return tags
