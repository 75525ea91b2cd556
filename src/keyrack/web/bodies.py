"""Reads what callers send: strict JSON, forms, numbers in queries; must know no dialect's words."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.requests import Request
from starlette.responses import Response

from keyrack.errors import Kind, Refusal

NUMBER = re.compile(r"[0-9]{1,10}")
LARGEST_NUMBER = 9_999_999_999
FORM = "application/x-www-form-urlencoded"
"""The type of a form, which curl -d also sends for any other body if no type is given."""
PARTS = "multipart/form-data"
"""The type of a form in parts, as curl --form sends it."""
TEXT = "text/plain"
"""The type that a browser's fetch() gives a body that is a string, if no type is given."""
BOUNDARY = re.compile(r'boundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70})(?<! )', re.IGNORECASE)
PART = re.compile(r'^content-disposition: *form-data; *name="?([^";\r\n]+)"?([^\r\n]*)', re.IGNORECASE | re.MULTILINE)
"""A part's Content-Disposition header: the name, and the rest of the line."""
LARGEST_ID = 2_147_483_647
# Characters that the databases cannot store (NUL) or UTF-8 cannot encode (lone surrogates).
NO_TEXT = re.compile("[\x00\ud800-\udfff]")
MAX_FIELDS = 1000
MAX_DEPTH = 32


def malformed(message: str, code: str = "body-malformed") -> Refusal:
    """The refusal of a body as a whole."""
    return Refusal(Kind.INVALID, code, message)


class Parameters(dict[str, str]):
    """A query's parameters. Reading one that was sent twice raises Refusal, as it is unclear which value counts. One
    that is never read is not checked, as several APIs ignore what they do not know.
    """

    twice: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(self._once(name))

    def get(self, name: str, default: Any = None) -> Any:
        """The parameter, or the default. Raises Refusal INVALID."""
        return super().get(self._once(name), default)

    def _once(self, name: str) -> str:
        if name in self.twice:
            words = f"{name} stands twice in the query; send it once."
            raise Refusal(Kind.INVALID, "parameter-twice", words, field=name)
        return name


def sent(request: Request, header: bytes) -> list[bytes]:
    """All values of a header; header: its name in lower case. Several times faster than Starlette's getlist()."""
    return [value for name, value in request.scope["headers"] if name == header]


def sent_texts(request: Request, header: bytes) -> list[str]:
    """The same as text, decoded as Latin-1."""
    return [value.decode("latin-1") for name, value in request.scope["headers"] if name == header]


def announced(request: Request) -> int | None:
    """The length of a body in bytes by its Content-Length, 0 without a body, None for a chunked body."""
    (length, *_) = sent(request, b"content-length") or (b"",)
    if length.isdigit():
        return int(length[:20])
    return None if sent(request, b"transfer-encoding") else 0


def may_be(request: Request, size: int) -> bool:
    """Whether a body may have at least so many bytes, as far as its head says."""
    length = announced(request)
    return length is None or length >= size


def check_length(request: Request, limit: int) -> None:
    """Raise Refusal TOO_LARGE for a body whose Content-Length is larger, before it is read (and 100-continue sent)."""
    if (announced(request) or 0) > limit:
        raise _too_long(limit)


async def read(request: Request, limit: int) -> bytes:
    """The whole body, at most `limit` bytes; raises Refusal TOO_LARGE beyond it, before reading on."""
    check_length(request, limit)
    chunks: list[bytes] = []
    size, more = 0, True
    while more:  # not Starlette's stream(): the event loop keeps track of each such generator
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise malformed("The body ended before its announced length.", "body-cut-off")
        chunk = message.get("body", b"")
        size, more = size + len(chunk), message.get("more_body", False)
        if size > limit:
            raise _too_long(limit)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_long(limit: int) -> Refusal:
    return Refusal(Kind.TOO_LARGE, "body-too-long", f"The body is longer than {limit} bytes.")


def media_type(request: Request) -> str:
    """The Content-Type in lower case without parameters, "" for none. Raises Refusal for two of them, and for a charset
    other than UTF-8.
    """
    values = sent_texts(request, b"content-type")
    if len(values) > 1:
        raise malformed("The request has more than one Content-Type.", "content-type")
    if not values:
        return ""
    name, _, parameters = values[0].partition(";")
    if not parameters:
        return name.strip().lower()
    charset = re.search(r'charset\s*=\s*"?([A-Za-z0-9_-]+)', parameters, re.IGNORECASE)
    if charset and charset[1].lower() not in ("utf-8", "utf8", "us-ascii"):
        raise malformed("The body must be in UTF-8.", "content-type")
    return name.strip().lower()


def read_json(request: Request, content: bytes) -> tuple[Mapping[str, Any], bool]:
    """The fields of a JSON body, and False, as it is not a form. Raises Refusal for other types and for invalid JSON.

    The type may also be missing, that of a form or plain text: many published examples name none, and then curl sends
    the one and fetch() the other.
    """
    if media_type(request) not in ("", "application/json", FORM, TEXT):
        raise malformed("The body must be JSON.", "content-type")
    return json_object(content), False


def check_encoding(request: Request) -> None:
    """Refuse compressed bodies, as limits of size count bytes before decompression. Raises Refusal.

    The header is accepted without a body, and for GET, whose body is ignored: some programs always send it.
    """
    (encoding, *_) = sent(request, b"content-encoding") or (b"",)
    if encoding.strip().lower() in (b"", b"identity"):
        return
    if request.method not in ("GET", "HEAD") and announced(request) != 0:
        raise malformed("A compressed body is not accepted; send it as it is.", "content-encoding")


def json_object(body: bytes, *, mended: bool = False) -> dict[str, Any]:
    """A JSON object, strictly: UTF-8, no name twice, no NaN or Infinity, bounded depth. Raises Refusal.

    mended: NUL and lone surrogates in texts are replaced by U+FFFD instead of refused.
    """
    value = json_value(body)
    if not isinstance(value, dict):
        raise malformed("The body must be a JSON object.")
    # Only escapes can write them: an unescaped NUL is not valid JSON, and an unescaped surrogate not valid UTF-8.
    if b"\\u" not in body:
        return value
    if mended:
        return {_mended(name): _mended(item) for name, item in value.items()}
    for name, item in value.items():
        if NO_TEXT.search(name) or _holds_no_text(item):
            words = "This holds a NUL or half a character (a lone surrogate), which is no text."
            raise Refusal(Kind.INVALID, "no-text", words, field=None if NO_TEXT.search(name) else name)
    return value


def json_value(body: bytes) -> Any:
    """Any JSON value, checked as json_object does, except for NUL and lone surrogates. Raises Refusal."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed("The body is not UTF-8.") from None
    try:
        value = _strict.decode(text)
    except (ValueError, RecursionError):
        raise malformed("The body is not valid JSON.") from None
    if _depth_exceeds(value, MAX_DEPTH):
        raise malformed("The body is nested too deeply.")
    return value


def form(body: bytes) -> dict[str, str]:
    """An application/x-www-form-urlencoded body. Raises Refusal."""
    try:
        pairs = parse_qsl(
            body.decode("utf-8"),  # not ASCII, as programs such as curl -d send other letters without encoding them
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except (UnicodeError, ValueError):
        raise _no_form() from None
    return _form_of(pairs)


def parts(request: Request, body: bytes) -> dict[str, str]:
    """The fields of a multipart/form-data body (RFC 7578). Raises Refusal, also for a part that is a file."""
    boundary = BOUNDARY.search("".join(sent_texts(request, b"content-type")))
    if boundary is None:
        raise _no_form()
    # No text may stand before the first boundary or after the last one; clients send none.
    first, *pieces = (b"\r\n" + body).split(b"\r\n--" + boundary[1].encode("latin-1"), MAX_FIELDS + 1)
    if first or not pieces or pieces.pop().rstrip(b"\r\n") != b"--":
        raise _no_form()
    return _form_of([_part(piece) for piece in pieces])


def _part(piece: bytes) -> tuple[str, str]:
    """The name and the text of a part."""
    head, _, content = piece.partition(b"\r\n\r\n")
    try:
        named, text = PART.search(head.decode("utf-8")), content.decode("utf-8")
    except UnicodeDecodeError:
        raise _no_form() from None
    if named is None:
        raise _no_form()
    if "filename" in named[2].lower():
        words = f"{named[1]} is sent as a file; send its text instead, with curl as --form '{named[1]}=<FILE'."
        raise Refusal(Kind.INVALID, "body-malformed", words, field=named[1])
    return named[1], text


def _no_form() -> Refusal:
    return malformed("The body is not a valid form.")


def _form_of(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """The fields of a form. Raises Refusal where one stands twice or is no text."""
    if any(NO_TEXT.search(name) or NO_TEXT.search(value) for name, value in pairs):
        raise malformed("The form holds a NUL character.")
    if len({name for name, _ in pairs}) != len(pairs):
        raise malformed("The form names a field twice.")
    return dict(pairs)


def number(text: str) -> int | None:
    """A plain decimal number of up to ten digits, or None: no sign, blank, underscore or other script."""
    return int(text) if NUMBER.fullmatch(text) else None


def identifier(text: str) -> int:
    """An id in a path; 0 for anything else: no row has it, so the answer is 404."""
    value = number(text)
    return value if value is not None and value <= LARGEST_ID else 0


def check_path(request: Request) -> None:
    """Raise Refusal for a path that is not UTF-8 or holds a NUL: decoded, different ones would become the same name."""
    try:
        fine = "\x00" not in unquote_to_bytes(request.scope["raw_path"]).decode("utf-8")
    except UnicodeDecodeError:
        fine = False
    if not fine:
        words = "The path is not valid UTF-8, or holds a NUL character."
        raise Refusal(Kind.INVALID, "path-malformed", words, field="path")


def query(request: Request, *, repeats: bool = False) -> Mapping[str, str]:
    """The query's parameters; reading one that was sent twice raises Refusal. Raises Refusal for text that is not UTF-8
    or holds a NUL.

    repeats: the last value of a parameter counts instead, as some pages of the console send one several times.
    """
    if not request.scope["query_string"]:
        return Parameters()
    try:
        pairs = parse_qsl(request.scope["query_string"].decode("ascii"), keep_blank_values=True, errors="strict")
    except (UnicodeError, ValueError):
        raise malformed("The query is not valid UTF-8.", "query-malformed") from None
    for name, value in pairs:
        if "\x00" in name or "\x00" in value:
            raise malformed("The query holds a NUL character.", "query-malformed")
    parameters = Parameters(pairs)
    if len(parameters) != len(pairs) and not repeats:
        counts = Counter(name for name, _ in pairs)
        parameters.twice = frozenset(name for name, count in counts.items() if count > 1)
    return parameters


def retried(response: Response, refusal: Refusal) -> Response:
    """The answer to a refusal, with Retry-After if the refusal says when to try again."""
    if refusal.retry_after:
        response.headers["Retry-After"] = str(refusal.retry_after)
    return response


def _holds_no_text(value: Any) -> bool:
    if isinstance(value, str):
        return NO_TEXT.search(value) is not None
    if isinstance(value, dict):
        return any(NO_TEXT.search(name) or _holds_no_text(item) for name, item in value.items())
    return isinstance(value, list) and any(_holds_no_text(item) for item in value)


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return NO_TEXT.sub("\ufffd", value)
    if isinstance(value, dict):
        return {NO_TEXT.sub("\ufffd", name): _mended(item) for name, item in value.items()}
    return [_mended(item) for item in value] if isinstance(value, list) else value


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise malformed("The body names a field twice.")
    if len(pairs) > MAX_FIELDS:
        raise malformed(f"The body has more than {MAX_FIELDS} fields in one object.")
    return values


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _finite_number(text: str) -> float:
    """A number with a point or an exponent; 1e999 would be infinite, which no JSON answer can hold."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


# Made once: json.loads makes a new decoder each time it is given an option.
_strict = json.JSONDecoder(object_pairs_hook=_no_name_twice, parse_constant=_no_constant, parse_float=_finite_number)


def _depth_exceeds(value: Any, depth: int) -> bool:
    """Whether values are nested deeper. Level by level, so that the many texts of a long body cost no call each."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(depth):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True
