"""The console as one API beside the others: its pages, who visits, how it says no; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from keyrack import policy
from keyrack.core.instance import Instance
from keyrack.core.people import users, web_sessions
from keyrack.core.work import Attempt
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import Actor
from keyrack.store.people.web_sessions import Visitor
from keyrack.web import bodies
from keyrack.web.api import Call, Dialect, Endpoint, address_of, strangers
from keyrack.web.console import (
    live,
    pages_access,
    pages_activity,
    pages_alarms,
    pages_freezes,
    pages_host_keys,
    pages_hosts,
    pages_keys,
    pages_live,
    pages_overview,
    pages_own_sign_in,
    pages_people,
    pages_provider,
    pages_repositories,
    pages_requests,
    pages_search,
    pages_settings,
    pages_sign_in,
    pages_webhooks,
    pages_welcome,
    reauthentication,
    safety,
    templates,
)
from keyrack.web.console.visits import CONFIRMED, FORM_AGAIN, STATUS, ConsolePage, Form, Visit, judged_first

PAGES: tuple[ConsolePage, ...] = (
    *pages_sign_in.PAGES,
    *pages_provider.PAGES,
    *pages_own_sign_in.PAGES,
    *pages_welcome.PAGES,
    *pages_overview.PAGES,
    *pages_alarms.PAGES,
    *pages_search.PAGES,
    *pages_keys.PAGES,
    *pages_hosts.PAGES,
    *pages_host_keys.PAGES,
    *pages_people.PAGES,
    *pages_access.PAGES,
    *pages_requests.PAGES,
    *pages_repositories.PAGES,
    *pages_activity.PAGES,
    *pages_settings.PAGES,
    *pages_webhooks.PAGES,
    *pages_freezes.PAGES,
    *pages_live.PAGES,
)
GETS: Mapping[str, ConsolePage] = {page.path: page for page in PAGES if page.method == "GET"}


def dialect(instance: Instance) -> Dialect:
    """The console of one instance, as web/api.py serves it."""
    return Dialect(
        name=web_sessions.CHANNEL,
        endpoints=ENDPOINTS,
        authenticate=authenticate,
        refuse=partial(refuse, instance),
        unknown_path=partial(unknown_path, instance),
        waits_unknown=partial(may_be_somebody, instance),
        meet=partial(_find, instance),
        not_supported=partial(not_supported, instance),
        read_body=read_form,
        finish=partial(finish, instance),
        repeats=True,
    )


def is_for_people(request: Request) -> bool:
    """Whether a browser asks, rather than a program."""
    return "text/html" in request.headers.get("accept", "") or "hx-request" in request.headers


def authenticate(instance: Instance, request: Request) -> Actor:
    """The actor that the session's cookie names. Raises Refusal UNAUTHENTICATED."""
    address = address_of(request)
    secret = safety.cookie(instance, request, safety.SESSION)
    visitor = web_sessions.find(instance, secret, address=address, in_use=not live.is_by_itself(request))
    actor = web_sessions.actor_of(visitor.user, address=address, session=visitor.session)
    # Read here, on a thread: refuse() shows it too, and may not wait for the database.
    request.state.workspace = users.workspace_of(instance, actor).name
    request.state.visitor = visitor
    return actor


def read_form(request: Request, content: bytes) -> tuple[Mapping[str, Any], bool]:
    """The fields of a form, each with all its values. Raises Refusal."""
    if bodies.media_type(request) != bodies.FORM:
        raise bodies.malformed("The console takes forms.", "content-type")
    try:
        pairs = parse_qsl(
            content.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=bodies.MAX_FIELDS
        )
    except (UnicodeError, ValueError):
        raise bodies.malformed("The body is not a valid form.") from None
    if any(bodies.NO_TEXT.search(name) or bodies.NO_TEXT.search(value) for name, value in pairs):
        raise bodies.malformed("The form holds a NUL character.")
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value.replace("\r\n", "\n"))
    return values, True


def refuse(instance: Instance, request: Request, refusal: Refusal) -> Response:
    """A refusal as a page or a part of one, in the core's words; who is not signed in is sent to the sign-in page."""
    status = STATUS[refusal.kind]
    visitor = _visitor(request)
    if not is_for_people(request) and request.method in safety.SAFE:
        return bodies.retried(PlainTextResponse(refusal.message, status), refusal)
    if refusal.kind is Kind.UNAUTHENTICATED and visitor is None:
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        login = "/login" if request.method not in safety.SAFE or back == "/" else f"/login?next={quote(back, safe='/')}"
        # A page that asked by itself stays as it is, and so does one where somebody is typing.
        if live.is_by_itself(request):
            return Response(status_code=401)
        if request.method in safety.SAFE and "hx-request" not in request.headers:
            return RedirectResponse(login, 303)
    visit = _visit(instance, request, visitor)
    if "hx-request" in request.headers:
        response = visit.show("_message.html", status=status, error=refusal)
        response.headers["HX-Retarget"] = "#messages"
        response.headers["HX-Reswap"] = "innerHTML"
    else:
        response = visit.show("error.html", status=status, error=refusal)
    return bodies.retried(response, refusal)


def may_be_somebody(instance: Instance, request: Request) -> bool:
    """Whether the caller may be signed in: then the answer shows the rail, which asks the database."""
    return is_for_people(request) and bool(safety.cookie(instance, request, safety.SESSION))


def unknown_path(instance: Instance, request: Request) -> Response:
    """404; a static file is one of the paths that no page has."""
    static_file = templates.static(request) if request.method in safety.SAFE else None
    if static_file is not None:
        return static_file
    if not is_for_people(request):
        return PlainTextResponse("Not Found", 404)
    if may_be_somebody(instance, request):
        _find(instance, request)
    return refuse(instance, request, missing("page"))


def not_supported(instance: Instance, request: Request, methods: tuple[str, ...]) -> Response:
    """405 with the methods that the path has."""
    allowed = ", ".join(sorted(methods))
    return PlainTextResponse(f"This page takes: {allowed}.", 405, {"Allow": allowed})


def finish(instance: Instance, request: Request, actor: Actor | None, response: Response) -> None:
    """Set the security headers and Cache-Control of every answer."""
    for name, value in safety.HEADERS.items():
        response.headers[name] = value
    response.headers.setdefault("Cache-Control", safety.NO_STORE)
    if safety.is_secure(instance, request):
        response.headers["Strict-Transport-Security"] = "max-age=31536000"


def _endpoint(page: ConsolePage) -> Endpoint:
    return Endpoint(
        page.method, page.path, partial(_answer, page), action=page.action, open=page.open, hashes=page.hashes
    )


def _visitor(request: Request) -> Visitor | None:
    visitor: Visitor | None = getattr(request.state, "visitor", None)
    return visitor


def _visit(instance: Instance, request: Request, visitor: Visitor | None, call: Call | None = None) -> Visit:
    address = address_of(request)
    if visitor is None:
        actor = strangers(web_sessions.CHANNEL, address)
    else:
        actor = web_sessions.actor_of(visitor.user, address=address, session=visitor.session)
    return Visit(
        instance=instance,
        actor=actor,
        request=request,
        path=call.path if call else {},
        query=call.query if call else {},
        form=Form(call.body if call else {}),
        session=visitor.session if visitor else None,
        pages=GETS,
        now=instance.now(),
        workspace=getattr(request.state, "workspace", ""),
    )


def _answer(page: ConsolePage, call: Call) -> Response:
    request, instance = call.request, call.instance
    if page.open:
        _find(instance, request)
    visit = _visit(instance, request, _visitor(request), call)
    if page.method != "GET" and not page.from_outside:
        _check_form(visit)
    if not page.open and policy.may(call.actor, page.action) is not None:
        with Attempt(instance, call.actor, page.action, "open a page of the console", target_kind="page"):
            pass
    try:
        if page.asks is not None and not visit.form.flag(CONFIRMED):
            first = page.asks(visit)
            kept = [pair for pair in visit.form.pairs() if pair[0] not in (safety.FIELD, *first.fixed)]
            hidden = [*kept, *first.fixed.items(), (CONFIRMED, "yes")]
            return visit.show("confirm.html", asked=first, hidden=hidden)
        if page.dangerous:
            proven = reauthentication.demand(visit, partial(judged_first, page))
            if isinstance(proven, Response):
                return proven
            visit = proven
        return page.handler(visit)
    except Refusal as refusal:
        if page.again is None or refusal.kind not in FORM_AGAIN:
            raise
        return bodies.retried(page.again(replace(visit, refusal=refusal)), refusal)


def _check_form(visit: Visit) -> None:
    name = safety.SESSION if visit.session else safety.FORM
    secret = safety.cookie(visit.instance, visit.request, name)
    sent = visit.form.text(safety.FIELD) or visit.request.headers.get(safety.HEADER, "")
    safety.check(visit.instance, visit.request, secret, sent)


def _find(instance: Instance, request: Request) -> None:
    """Note who is signed in, on a page that needs no sign-in."""
    if safety.cookie(instance, request, safety.SESSION):
        with suppress(Refusal):
            authenticate(instance, request)


ENDPOINTS = tuple(_endpoint(page) for page in PAGES)
