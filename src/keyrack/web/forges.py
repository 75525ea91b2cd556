"""What GitLab's and GitHub's APIs have in common on the wire: tokens, pages, Link, ETag, files of keys; must hold no
texts of either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from keyrack.core.instance import Instance
from keyrack.core.keys import published_keys
from keyrack.core.people import tokens
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor
from keyrack.store.database import DatabaseUnavailable
from keyrack.web import bodies
from keyrack.web.api import Call, address_of, strangers, unanswered

MAX_PER_PAGE = 100
_NOT_LINKED = ("page", "per_page", "private_token", "access_token", "job_token")
_NO_TOKEN = "This call takes a token; see docs/api."  # noqa: S105 — words


def authenticate(
    instance: Instance, request: Request, *, channel: str, schemes: tuple[str, ...], header: str = ""
) -> Actor:
    """The actor of a token, sent in Authorization with one of the schemes (in lower case), or in the given header.

    If both are sent, only the given header counts, as in GitLab: something else, such as a proxy, may have set
    Authorization. channel: the API's name in the audit log. Raises Refusal UNAUTHENTICATED: "no-credentials" if no
    token was sent, "token-not-in-force" if it is not valid.
    """
    own = [token for token in request.headers.getlist(header) if token] if header else []
    sent = own or request.headers.getlist("authorization")
    if not sent:
        raise Refusal(Kind.UNAUTHENTICATED, "no-credentials", _NO_TOKEN)
    scheme, _, secret = sent[0].partition(" ")
    if len(sent) > 1 or not (own or scheme.lower() in schemes):
        raise Refusal(Kind.UNAUTHENTICATED, "token-not-in-force", "This token is not in force.")
    return tokens.authenticate(
        instance, (sent[0] if own else secret).strip(), address=address_of(request), channel=channel
    )


def is_anonymous(request: Request, *headers: str) -> bool:
    """Whether a request has no credentials; headers: further names of headers, in lower case, that may hold a token."""
    return not any(name in request.headers for name in ("authorization", *headers))


def fields(request: Request, content: bytes) -> tuple[dict[str, Any], bool]:
    """The fields of a JSON or form body, and whether it was a form. Raises Refusal."""
    kind = bodies.media_type(request)
    if kind == bodies.FORM and not content.lstrip().startswith(b"{"):
        return bodies.form(content), True
    if kind in ("", "application/json", bodies.FORM, bodies.TEXT) or kind.endswith("+json"):
        return bodies.json_object(content), False
    raise bodies.malformed("The body must be JSON or a form.", "content-type")


def link(call: Call, pages: Iterable[tuple[str, int]], size: int) -> str:
    """The Link header of a page (RFC 8288), with the other parameters of the query, but no token; pages: pairs of
    relation and page number; size: entries on a page.
    """
    base = call.instance.settings.url + str(call.request.scope["path"]).rstrip("/")
    kept = {name: value for name, value in call.query.items() if name not in _NOT_LINKED}
    others = f"{urlencode(kept)}&" if kept else ""
    parts = [f'<{base}?{others}page={number}&per_page={size}>; rel="{relation}"' for relation, number in pages]
    return ", ".join(parts)


def answered(call: Call, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer in JSON; to a GET with an ETag, or as 304 if the caller has it already."""
    response = JSONResponse(content, status, headers=headers)
    return response if call.request.method not in ("GET", "HEAD") else tagged(call.request, response)


def tagged(request: Request, response: Response) -> Response:
    """The same answer with its ETag, or 304 without a body (RFC 9110, If-None-Match)."""
    tag = f'W/"{hashlib.sha256(bytes(response.body)).hexdigest()[:32]}"'
    known = [one.strip() for line in request.headers.getlist("if-none-match") for one in line.split(",")]
    if "*" in known or tag in known or tag.removeprefix("W/") in known:
        kept = {name: value for name, value in response.headers.items() if name == "link"}
        return Response(status_code=304, headers={**kept, "ETag": tag})
    response.headers["ETag"] = tag
    return response


async def keys_file(instance: Instance, request: Request) -> Response:
    """`/NAME.keys`: a user's keys, each a line of type and base64, for anybody; 404 for an unknown user."""
    stranger = strangers("keys", address_of(request))
    name = str(request.path_params["name"]).replace("\x00", "\ufffd")
    try:
        published = await run_in_threadpool(published_keys.of_user, instance, stranger, name=name)
    except DatabaseUnavailable as error:
        away = unanswered(error)
        return bodies.retried(PlainTextResponse(away.message, 500 if away.kind is Kind.FAULT else 503), away)
    except Refusal as refusal:
        status = 404 if refusal.kind is Kind.MISSING else 401
        return PlainTextResponse("Not Found\n" if status == 404 else f"{refusal.message}\n", status)
    lines = "".join(f"{key.public_key}\n" for key in published.keys)
    return tagged(request, PlainTextResponse(lines))
