"""Signing in and out: by password, with a second factor, by a passkey; must hold no rule of who may."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.people import first_visit, passkeys, sign_in, web_sessions
from keyrack.core.people.sign_in import PendingSignIn
from keyrack.errors import Kind, Refusal
from keyrack.web.api import address_of
from keyrack.web.console import browsers, safety
from keyrack.web.console.visits import Visit, change, page


def login(visit: Visit) -> Response:
    """The form to sign in with; whoever is signed in goes on."""
    onward = _onward(visit)
    if visit.session is not None and visit.refusal is None:
        return visit.go(onward)
    safety.refuse_in_the_clear(visit.instance, visit.request)
    browser = browsers.of(visit)
    options = passkeys.options(visit.instance, browser) if browser else ""
    return visit.show(
        "login.html",
        onward=onward,
        name=visit.form.text("name"),
        options=options,
        provider=visit.instance.settings.oidc_name,
    )


def enter(visit: Visit) -> Response:
    """Sign in by name and password."""
    safety.refuse_in_the_clear(visit.instance, visit.request)
    try:
        begun = sign_in.by_password(
            visit.instance,
            visit.form.text("name"),
            visit.form.text("password"),
            address=address_of(visit.request),
            user_agent=_user_agent(visit),
        )
    except Refusal as refusal:
        if refusal.code != "sign-in-failed":
            raise
        # The form asks for no domain, as other APIs do.
        raise Refusal(refusal.kind, refusal.code, "The user name or the password is wrong.") from None
    if isinstance(begun, PendingSignIn):
        response = visit.go("/login/second")
        value = safety.with_path(begun.carried, _onward(visit))
        lasts = int(sign_in.SECOND_LASTS.total_seconds())
        safety.set_cookie(visit.instance, visit.request, response, safety.STEP, value, seconds=lasts)
        return response
    onward = _onward(visit)
    if onward == "/" and first_visit.is_first(visit.instance, begun.visitor.user.id):
        onward = "/welcome"
    return signed_in(visit, visit.go(onward), begun)


def second(visit: Visit) -> Response:
    """The form for the second factor."""
    carried, _ = _pending(visit)
    number = sign_in.pending(visit.instance, carried)
    if number is None:
        return visit.go("/login")
    browser = browsers.of(visit)
    options = passkeys.options(visit.instance, browser, user_id=number) if browser else ""
    return visit.show("second.html", options=options)


def enter_code(visit: Visit) -> Response:
    """Sign in by the second factor."""
    carried, onward = _pending(visit)
    address, user_agent = address_of(visit.request), _user_agent(visit)
    answer, browser = visit.form.text("answer"), browsers.of(visit)
    if answer and browser is not None:
        begun = sign_in.by_second_passkey(
            visit.instance, carried, browser, answer, address=address, user_agent=user_agent
        )
    else:
        begun = sign_in.by_code(
            visit.instance, carried, visit.form.text("code"), address=address, user_agent=user_agent
        )
    return signed_in(visit, visit.go(onward), begun)


def enter_by_passkey(visit: Visit) -> Response:
    """Sign in by a passkey alone."""
    browser = browsers.of(visit)
    if browser is None:
        raise Refusal(Kind.INVALID, "passkey-place", "Passkeys need the console to be opened by its name, over https.")
    begun = sign_in.by_passkey(
        visit.instance,
        browser,
        visit.form.text("answer"),
        address=address_of(visit.request),
        user_agent=_user_agent(visit),
    )
    return signed_in(visit, visit.go(_onward(visit)), begun)


def signed_in(visit: Visit, response: Response, begun: web_sessions.NewWebSession) -> Response:
    """Have the browser keep its new session, whose secret is always a new one."""
    safety.set_cookie(visit.instance, visit.request, response, safety.SESSION, begun.secret)
    for name in (safety.FORM, safety.STEP):
        safety.set_cookie(visit.instance, visit.request, response, name, "")
    return response


def leaving(visit: Visit) -> Response:
    """The form to sign out with, on a page of its own."""
    return visit.show("logout.html")


def leave(visit: Visit) -> Response:
    """End this session."""
    assert visit.session is not None
    web_sessions.end(visit.instance, visit.actor, visit.session.id)
    response = visit.go("/login")
    safety.set_cookie(visit.instance, visit.request, response, safety.SESSION, "")
    return response


def _onward(visit: Visit) -> str:
    return safety.local_path(visit.form.text("next") or visit.query.get("next", "") or "/")


def _user_agent(visit: Visit) -> str:
    return visit.request.headers.get("user-agent", "")


def _pending(visit: Visit) -> tuple[str, str]:
    """What the browser carried from the password, and where it wanted to go."""
    return safety.without_path(safety.cookie(visit.instance, visit.request, safety.STEP))


PAGES = (
    page("/login", login, open=True),
    change("/login", enter, "iam:self", again=login, open=True, hashes=True, undo="/logout"),
    change("/login/passkey", enter_by_passkey, "iam:self", again=login, open=True, undo="/logout"),
    page("/login/second", second, open=True),
    change("/login/second", enter_code, "iam:self", again=second, open=True, undo="/logout"),
    page("/logout", leaving),
    change("/logout", leave, "iam:self", undo="/login"),
)
