"""One call of Keyrack's own API: body and query checked by their models, the answer written; must know no resource."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, wraps
from typing import Any, TypedDict, TypeVar, Unpack, overload
from urllib.parse import quote

from pydantic import ValidationError
from starlette.responses import Response

from keyrack import policy
from keyrack.core import cursors, preconditions, shape
from keyrack.core.hosts import servers
from keyrack.core.instance import Instance
from keyrack.core.work import refuse
from keyrack.errors import Kind, Refusal, invalid
from keyrack.web import bodies
from keyrack.web.api import Call, Endpoint, Handler
from keyrack.web.native import conditions
from keyrack.web.native.conditions import Condition
from keyrack.web.native.shapes import Answer, Query, Request, parameter_names

R = TypeVar("R", bound=Request)
Q = TypeVar("Q", bound=Query)
Answers = Answer | Response | None
CURSOR, NEXT, PAGE = "cursor", "next", "page"
FIELD = re.compile(r"\{(\w+)\}")


class _Rest(TypedDict, total=False):
    """What every call may have beside its body and query, as endpoint() says it."""

    answers: type[Answer] | None
    status: int
    on_event_loop: bool
    shown_at: str | None
    first: Callable[[Call], object] | None


# One for each way in which a handler gets what was sent: body and query, the body, the query, neither.
@overload
def endpoint(
    method: str,
    path: str,
    handler: Callable[[Call, R, Q], Answers],
    action: str,
    *,
    takes: type[R],
    asks: type[Q],
    **rest: Unpack[_Rest],
) -> Endpoint: ...


@overload
def endpoint(
    method: str,
    path: str,
    handler: Callable[[Call, R], Answers],
    action: str,
    *,
    takes: type[R],
    **rest: Unpack[_Rest],
) -> Endpoint: ...


@overload
def endpoint(
    method: str,
    path: str,
    handler: Callable[[Call, Q], Answers],
    action: str,
    *,
    asks: type[Q],
    **rest: Unpack[_Rest],
) -> Endpoint: ...


@overload
def endpoint(
    method: str,
    path: str,
    handler: Callable[[Call], Answers],
    action: str,
    **rest: Unpack[_Rest],
) -> Endpoint: ...


def endpoint(
    method: str,
    path: str,
    handler: Callable[..., Answers],
    action: str,
    *,
    takes: type[Request] | None = None,
    asks: type[Query] | None = None,
    answers: type[Answer] | None = None,
    status: int = 0,
    first: Callable[[Call], object] | None = None,
    on_event_loop: bool = False,
    shown_at: str | None = None,
) -> Endpoint:
    """One call, as the API serves it and as it is described.

    handler: gets the call, then the body as takes has it, then the query as asks has it; its first line of text is
    the call's summary. takes, asks, answers: None without a body, a query, an answer; status: 200 or 204 where it
    is left out; first: refuses a caller before query and body are checked, where the action alone does not say
    who may call, or no GET shows what the path names; on_event_loop: see Endpoint; shown_at: where what
    the call made or began is shown, such as "/grants/{id}" with the answer's fields; it becomes the answer's Location.
    """

    @wraps(handler)
    def answered(call: Call) -> Response:
        try:
            asked, arguments = _read(call, takes, asks, tag)
        except Refusal as refusal:
            # 403 and 404 come before 422.
            raise _refusal_to_raise(call, action, refusal, first, _read_again(call, method, handler, asks)) from None
        more, condition = [] if asks is None else [asked], conditions.of(call)
        if condition is None or method == "GET":
            answer = handler(call, *arguments, *more)
        else:
            answer = preconditions.guarded(
                call.instance,
                call.actor,
                action,
                partial(_holds, call, path, condition),
                lambda inner: handler(replace(call, instance=inner), *arguments, *more),
                words=condition.words,
            )
        if isinstance(answer, Response):
            return answer
        if answer is None:
            return Response(status_code=code)
        answer = answer if asks is None else _marked(answer, tag)
        if condition is not None and method == "GET" and conditions.read(condition, answer):
            return Response(status_code=304, headers={"ETag": conditions.tag_of(answer)})
        return _placed(written(answer, code), call, path, shown_at, answer)

    tag = cursors.list_tag(path)
    code = status or (200 if answers is not None else 204)
    if method == "GET" and asks is None:
        _handlers_of_get[path] = answered
        _existence_checks[FIELD.sub("{}", path)] = (path, action, answered)
    run = _in_order(answered, method, path, action, first)
    return Endpoint(
        method, path, run, action, takes=takes, asks=asks, answers=answers, status=code, on_event_loop=on_event_loop
    )


def written(answer: Answer, status: int = 200) -> Response:
    """An answer as JSON, by pydantic's own writer."""
    content = answer.__pydantic_serializer__.to_json(answer)
    return Response(
        content, status, media_type="application/json", headers={"ETag": conditions.tag_of(answer, content)}
    )


def _marked(answer: Answer, tag: str) -> Answer:
    """The answer with its cursor marked by the list that it belongs to."""
    onward = getattr(answer, NEXT, None)
    return answer if onward is None else answer.model_copy(update={NEXT: tag + onward})


def _placed(response: Response, call: Call, path: str, shown_at: str | None, answer: Answer) -> Response:
    """The answer with its Location; a preview, which is stored nowhere, has none."""
    fields = {name: getattr(answer, name) for name in FIELD.findall(shown_at or "")}
    if shown_at is not None and None not in fields.values():
        above = call.request.scope["path"].split("/")[: -len(path.split("/")[1:])]
        place = shown_at.format(**{name: quote(str(value), safe="") for name, value in fields.items()})
        response.headers["Location"] = "/".join(above) + place
    return response


def _holds(call: Call, path: str, condition: Condition, inner: Instance) -> bool:
    """Whether what the path names is unchanged since the caller saw it, by the ETag of what GET answers now."""
    get = handler_of_get(path, "If-None-Match" if condition.wanted is None else "If-Match")
    try:
        bare = replace(call, instance=inner, body={}, query={}, unread=None, request=conditions.without(call.request))
        answer = get(bare)
    except Refusal as refusal:
        if refusal.kind is not Kind.MISSING:
            raise
        return condition.met_by(None)
    return condition.met_by(answer.headers.get("etag"))


def handler_of_get(path: str, header: str = "If-Match") -> Handler:
    """The handler of GET of a path. Raises Refusal INVALID where there is none, and so no ETag to compare with.

    header: the header that asks for the comparison.
    """
    handler = _handlers_of_get.get(path)
    if handler is None:
        raise invalid(header, "This path shows nothing that could be compared; leave the header out.")
    return handler


# Of the module, as endpoint() fills them while the modules of resources are imported; only read afterwards.
_handlers_of_get: dict[str, Handler] = {}
_existence_checks: dict[str, tuple[str, str, Callable[[Call], object]]] = {}
"""The GET calls that show whether a thing exists, by their paths without names: the path, the action, the handler."""


def _in_order(run: Handler, method: str, path: str, action: str, first: Callable[[Call], object] | None) -> Handler:
    """The same handler, with 403 and 404 before 422."""

    @wraps(run)
    def answered(call: Call) -> Response:
        try:
            return run(call)
        except Refusal as refusal:
            if refusal.kind is Kind.INVALID:
                if first is not None:
                    first(call)
                _refuse_missing(call, method, path, action, decided=first is not None)
            raise

    return answered


def _refuse_missing(call: Call, method: str, path: str, action: str, *, decided: bool) -> None:
    """Raise Refusal MISSING where the path names what is not there and the caller may see that, or may make the call,
    which would tell as much if nothing else were wrong.

    A PUT may make what the last part of its path names; what stands above it must be there. decided: that the caller
    may make the call is known already.
    """
    may_call = decided or policy.may(call.actor, action) is None
    parts = path.split("/")
    names = [at for at, part in enumerate(parts) if part.startswith("{")]
    if method == "PUT" and names and names[-1] == len(parts) - 1:
        names.pop()
    for end in names:
        above = "/".join(parts[: end + 1])
        shown, reading, handler = _existence_checks.get(FIELD.sub("{}", above), ("", "", None))
        if handler is None or not (may_call or policy.may(call.actor, reading) is None):
            continue
        actor = call.actor
        reader = replace(actor, policies=(*actor.policies, reading), scopes=(*actor.scopes, reading))
        values = [call.path[name] for name in FIELD.findall(above)]
        named = dict(zip(FIELD.findall(shown), values, strict=True))
        ids = {name: bodies.identifier(value) for name, value in named.items()}
        request = conditions.without(call.request)
        try:
            handler(replace(call, actor=reader, path=named, ids=ids, body={}, query={}, unread=None, request=request))
        except Refusal as refusal:
            if refusal.kind is Kind.MISSING:
                raise


def _read(
    call: Call, takes: type[Request] | None, asks: type[Query] | None, tag: str
) -> tuple[Query | None, list[object]]:
    """Query and body as their models have them. Raises Refusal INVALID."""
    # The query first: otherwise a misspelt parameter could go unnoticed.
    asked = _asked(call, asks, tag)
    if call.unread is not None:
        raise call.unread
    arguments: list[object] = [] if takes is None else [_sent(call, takes)]
    if takes is None and call.body:
        raise invalid("body", "This call takes no body.", "field-unknown")
    return asked, arguments


def _asked(call: Call, asks: type[Query] | None, tag: str) -> Query | None:
    """The query as its model has it; tag: of the cursors that this list gave."""
    if asks is None:
        for name in call.query:
            raise invalid(_written(name, "query"), "This call takes no query.", "parameter-unknown")
        return None
    values = dict(call.query)
    for name in parameter_names(asks):
        call.query.get(name)  # raises for one that was sent twice
    if CURSOR in asks.model_fields and CURSOR in values:
        # Generated clients send page=1 by default, so only another page contradicts a cursor.
        if PAGE in asks.model_fields and values.get(PAGE, "1") != "1":
            raise invalid(PAGE, "Name either page or cursor: a cursor says by itself where a page begins.")
        values[CURSOR] = cursors.own(tag, values[CURSOR])
    try:
        return asks.model_validate(values)
    except ValidationError as error:
        fault = shape.faults(error)[0]
    if fault.kind == shape.UNKNOWN:
        known = f"This call takes in its query: {', '.join(parameter_names(asks))}."
        raise invalid(_written(fault.field, "query"), known, "parameter-unknown")
    raise invalid(fault.field, f"{fault.path} {fault.words}.")


def _sent(call: Call, takes: type[Request]) -> Request:
    try:
        return takes.model_validate(call.body)
    except ValidationError as error:
        raise _refusal(error, takes, call.body) from None


def _read_again(
    call: Call, method: str, handler: Callable[..., Answers], asks: type[Query] | None
) -> Callable[[], object] | None:
    """The same call without its query, to see whether it is refused for another reason; None where the call changes
    something, or needs a query.
    """
    bare = replace(call, body={}, query={}, unread=None)
    if method != "GET":
        return None
    if asks is None:
        return partial(handler, bare)
    try:
        return partial(handler, bare, asks.model_validate({}))
    except ValidationError:
        return None


def _refusal_to_raise(
    call: Call,
    action: str,
    refusal: Refusal,
    first: Callable[[Call], object] | None,
    read_again: Callable[[], object] | None,
) -> Refusal:
    """The refusal of a call with a wrong query or body: 403 or 404 where the call is refused anyhow, else `refusal`.

    first: as in endpoint(); read_again: from _read_again().
    """
    if first is not None:
        first(call)
        return refusal
    if read_again is not None:
        try:
            read_again()
        except Refusal as said:
            if said.kind in (Kind.FORBIDDEN, Kind.MISSING):
                raise
        return refusal
    server = call.path.get("server")
    if server is not None and not call.ids["server"] and policy.may(call.actor, action) is None:
        servers.named(call.instance, call.actor, server)  # finding it by its name takes a right of its own
    there = None if server is None else lambda: servers.is_there(call.instance, call.actor, server)
    return refuse(call.instance, call.actor, action, refusal, there=there)


def _refusal(error: ValidationError, takes: type[Request], body: Mapping[str, Any]) -> Refusal:
    fault = shape.faults(error)[0]
    if fault.kind == shape.UNKNOWN:
        known = ", ".join(takes.model_fields)
        named = _written(fault.path, "")
        unknown = f"There is no field {named}. " if named else ""
        return invalid("body", f"{unknown}This call takes: {known}.", "field-unknown")
    return invalid(fault.field or "body", f"{fault.path or 'The body'} {fault.words}.")


def _written(name: str, otherwise: str) -> str:
    """A name from the request, where it is safe to quote."""
    return name if name.replace(".", "_").isidentifier() and len(name) <= 64 else otherwise
