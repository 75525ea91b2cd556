"""Signing in and out by password; must hold no rule of who may."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.people import sign_in, web_sessions
from keyrack.web.api import address_of
from keyrack.web.console import safety
from keyrack.web.console.visits import Visit, change, page


def login(visit: Visit) -> Response:
    """The form to sign in with; whoever is signed in goes on."""
    onward = safety.local_path(visit.query.get("next", "") or visit.form.text("next") or "/")
    if visit.session is not None and visit.refusal is None:
        return visit.go(onward)
    safety.refuse_in_the_clear(visit.instance, visit.request)
    return visit.show("login.html", onward=onward, name=visit.form.text("name"))


def enter(visit: Visit) -> Response:
    """Sign in by name and password."""
    safety.refuse_in_the_clear(visit.instance, visit.request)
    begun = sign_in.by_password(
        visit.instance,
        visit.form.text("name"),
        visit.form.text("password"),
        address=address_of(visit.request),
        browser=visit.request.headers.get("user-agent", ""),
    )
    response = visit.go(safety.local_path(visit.form.text("next") or "/"))
    return signed_in(visit, response, begun)


def signed_in(visit: Visit, response: Response, begun: web_sessions.Begun) -> Response:
    """Have the browser keep its new session, which is never one that it had before."""
    safety.set_cookie(visit.instance, visit.request, response, safety.SESSION, begun.secret)
    safety.set_cookie(visit.instance, visit.request, response, safety.FORM, "")
    return response


def leaving(visit: Visit) -> Response:
    """The form to sign out with, for those whose menu does not open."""
    return visit.show("logout.html")


def leave(visit: Visit) -> Response:
    """End this session."""
    assert visit.session is not None
    web_sessions.end(visit.instance, visit.actor, visit.session.id)
    response = visit.go("/login")
    safety.set_cookie(visit.instance, visit.request, response, safety.SESSION, "")
    return response


PAGES = (
    page("/login", login, open=True),
    change("/login", enter, "iam:self", again=login, open=True, hashes=True),
    page("/logout", leaving),
    change("/logout", leave, "iam:self"),
)
