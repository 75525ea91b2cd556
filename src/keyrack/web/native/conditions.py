"""If-Match and If-None-Match against the ETags of answers; must know no resource."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from starlette.requests import Request

from keyrack.core import preconditions
from keyrack.errors import invalid
from keyrack.web.api import Call
from keyrack.web.native.shapes import Answer

MAX_TAGS = 20
_TAG = re.compile(r'(W/)?("[!#-~\x80-\xff]*")')
_TAGS = re.compile(rf"{_TAG.pattern}(?:[ \t]*,[ \t]*{_TAG.pattern})*")
_ANY = "*"
_WEAK = (
    "A weak tag (W/) says nothing here. Where a proxy on the way made the answer's tag weak, as some do when they "
    "compress, send it without W/."
)


@dataclass(frozen=True, slots=True)
class Condition:
    """The preconditions of a call (RFC 9110, 13.2.2): If-Match first, then If-None-Match.

    wanted: the strong tags of If-Match, "*" for any, None for no header; unwanted: those of If-None-Match; words: the
    message of a refusal, None for the usual one.
    """

    wanted: frozenset[str] | None
    unwanted: frozenset[str] | None
    words: str | None = None

    def met_by(self, tag: str | None) -> bool:
        """Whether both hold; tag: of the present state, None if there is nothing."""
        return self.matched_by(tag) and not self.known(tag)

    def matched_by(self, tag: str | None) -> bool:
        """Whether If-Match holds, or was not sent."""
        return self.wanted is None or (tag is not None and not self.wanted.isdisjoint((_ANY, tag)))

    def known(self, tag: str | None) -> bool:
        """Whether If-None-Match names this tag."""
        return self.unwanted is not None and tag is not None and not self.unwanted.isdisjoint((_ANY, tag))


def of(call: Call) -> Condition | None:
    """The preconditions of a call, None for none. Raises Refusal INVALID for a malformed header.

    A weak tag matches nothing in If-Match and its own in If-None-Match (RFC 9110, 13.1).
    """
    _refuse_repeats(call)
    wanted, unwanted = (_tags(call.request, name) for name in ("If-Match", "If-None-Match"))
    if wanted is None and unwanted is None:
        return None
    strong = None if wanted is None else frozenset(tag for tag, weak in wanted.items() if not weak)
    other = None if unwanted is None else frozenset(unwanted)
    return Condition(strong, other, words=_WEAK if strong == frozenset() else None)


def _refuse_repeats(call: Call) -> None:
    """Raise Refusal INVALID for a POST with Idempotency-Key: sent again it would be done twice (decision 349)."""
    if call.request.method == "POST" and "idempotency-key" in call.request.headers:
        raise invalid(
            "Idempotency-Key",
            "Answers are not kept to be given again, as some hold a secret that is shown once; leave the header out. "
            "What makes or changes a thing by its name is a PUT, which may be sent again.",
        )


def read(condition: Condition, answer: Answer) -> bool:
    """Whether the caller has this answer already (304). Raises Refusal CHANGED where If-Match does not hold."""
    tag = tag_of(answer)
    if not condition.matched_by(tag):
        raise preconditions.changed(condition.words or "What is shown here now is not what If-Match names.")
    # A tag that leaves fields out does not show that these are the same.
    return condition.known("" if answer.untagged else tag)


def tag_of(answer: Answer, content: bytes | None = None) -> str:
    """The ETag of an answer; content: its JSON, if it was written already."""
    if content is None or answer.untagged:
        content = answer.__pydantic_serializer__.to_json(answer, exclude=set(answer.untagged) or None)
    return f'"{hashlib.sha256(content).hexdigest()[:32]}"'


def without(request: Request) -> Request:
    """The request as a GET without its preconditions, to read what its path names."""
    headers = [(name, value) for name, value in request.scope["headers"] if not name.startswith(b"if-")]
    return Request({**request.scope, "headers": headers, "method": "GET"})


def _tags(request: Request, header: str) -> dict[str, bool] | None:
    """The tags of a header, without W/, and whether each is weak alone; None where it was not sent."""
    # A list may stand on several lines (RFC 9110, 5.3).
    lines = request.headers.getlist(header)
    if not lines:
        return None
    text = ", ".join(lines).strip(" \t")
    if text == _ANY:
        return {_ANY: False}
    names = _TAG.findall(text) if _TAGS.fullmatch(text) else []
    if not 0 < len(names) <= MAX_TAGS:
        raise invalid(
            header, f"{header} takes the ETag of an answer as it is, in its quotes, up to {MAX_TAGS} of them, or *."
        )
    tags: dict[str, bool] = {}
    for weak, tag in names:
        tags[tag] = tags.get(tag, True) and bool(weak)
    return tags
