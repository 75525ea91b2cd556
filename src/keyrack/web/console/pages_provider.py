"""Signing in through an OpenID provider, and its word that a session is over; must hold no rule of who may."""

from __future__ import annotations

import hmac
from datetime import timedelta

from starlette.responses import PlainTextResponse, RedirectResponse, Response

from keyrack.core.instance import Instance
from keyrack.core.people import browser_state, provider_rules
from keyrack.errors import Kind, Refusal, missing
from keyrack.web.api import address_of
from keyrack.web.console import pages_sign_in, safety
from keyrack.web.console.provider import Provider, ProviderSignIn
from keyrack.web.console.visits import Visit, change, page

LASTS = timedelta(minutes=15)
PURPOSE = "at the provider"
# Kept in the module: what the provider said of itself is used by later visits too. By instance, as tests serve several
# in one process.
_made: dict[int, tuple[Instance, Provider]] = {}


def provider(instance: Instance) -> Provider:
    """The provider of an instance. Raises Refusal MISSING where the settings name none."""
    if not instance.settings.oidc_issuer:
        raise missing("page")
    held, made = _made.get(id(instance), (None, None))
    if held is not instance or made is None:
        made = Provider(instance.settings)
        _made[id(instance)] = (instance, made)
    return made


def begin(visit: Visit) -> Response:
    """Send the browser to the provider."""
    safety.refuse_in_the_clear(visit.instance, visit.request)
    begun = provider(visit.instance).begin()
    linking = visit.actor.user_id if visit.session and visit.query.get("link") else None
    held = {"state": begun.state, "nonce": begun.nonce, "verifier": begun.verifier, "link": linking}
    onward = "/settings/sign-in" if linking else safety.local_path(visit.query.get("next", "") or "/")
    value = safety.with_path(browser_state.pack(visit.instance, PURPOSE, held, lasts=LASTS), onward)
    response = RedirectResponse(begun.address, 303)
    safety.set_cookie(visit.instance, visit.request, response, safety.STEP, value, seconds=900)
    return response


def come_back(visit: Visit) -> Response:
    """Sign in with the code with which the provider sent the browser back."""
    text, onward = safety.without_path(safety.cookie(visit.instance, visit.request, safety.STEP))
    held = browser_state.unpack(visit.instance, PURPOSE, text)
    begun_elsewhere = Refusal(
        Kind.UNAUTHENTICATED,
        "sign-in-elsewhere",
        "This sign-in began in another browser, or too long ago. Begin again.",
    )
    if held is None or not hmac.compare_digest(held["state"].encode(), visit.query.get("state", "").encode()):
        raise begun_elsewhere
    if "code" not in visit.query:
        raise Refusal(Kind.UNAUTHENTICATED, "provider-refused", "The provider did not sign you in. Begin again.")
    begun = ProviderSignIn("", held["state"], held["nonce"], held["verifier"])
    claims = provider(visit.instance).finish(visit.query["code"], begun)
    if held["link"] is not None:
        if visit.session is None or visit.actor.user_id != held["link"]:
            raise begun_elsewhere
        provider_rules.link(visit.instance, visit.actor, claims)
        response = visit.go(onward, "From now on the provider signs you in too.")
        safety.set_cookie(visit.instance, visit.request, response, safety.STEP, "")
        return response
    made = provider_rules.sign_in(
        visit.instance,
        claims,
        address=address_of(visit.request),
        user_agent=visit.request.headers.get("user-agent", ""),
    )
    return pages_sign_in.signed_in(visit, visit.go(onward), made)


def end_sessions(visit: Visit) -> Response:
    """End sessions that the provider says are over; its signature proves the message."""
    issuer = visit.instance.settings.oidc_issuer
    try:
        session, subject, mark = provider(visit.instance).logout(visit.form.text("logout_token"))
    except Refusal as refusal:
        if refusal.kind is not Kind.UNAUTHENTICATED:
            raise
        return PlainTextResponse("The logout token is not valid.", 400)
    provider_rules.end(visit.instance, issuer=issuer, session=session, subject=subject, mark=mark)
    return Response(status_code=200)


PAGES = (
    page("/login/oidc", begin, open=True),
    page("/login/oidc/callback", come_back, open=True),
    change("/login/oidc/backchannel", end_sessions, "iam:self", open=True, from_outside=True, undo="/login"),
)
