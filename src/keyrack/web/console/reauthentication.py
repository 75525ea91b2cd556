"""Asks people to prove again who they are before a dangerous change, and keeps what they typed; must do no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from starlette.responses import Response

from keyrack.core.people import passkeys, second_factors, users, web_sessions
from keyrack.errors import Kind, Refusal
from keyrack.web.console import browsers, safety
from keyrack.web.console.visits import Form, Visit

PASSWORD, CODE, PASSKEY = "proof_password", "proof_code", "proof_passkey"
PROOFS = (PASSWORD, CODE, PASSKEY)


def demand(visit: Visit, judge: Callable[[Visit], None]) -> Visit | Response:
    """The visit as it may go on, or the page that asks for a proof first. Before it asks, judge raises the Refusal of
    what was typed.
    """
    assert visit.session is not None
    if web_sessions.is_proven(visit.instance, visit.session):
        return _without_proofs(visit)
    if not any(visit.form.text(name) for name in PROOFS):
        judge(visit)
        return _page(visit)
    try:
        _prove(visit)
    except Refusal as refusal:
        if refusal.kind not in (Kind.UNAUTHENTICATED, Kind.THROTTLED, Kind.INVALID):
            raise
        return _page(replace(visit, refusal=refusal))
    session = web_sessions.note_proof(visit.instance, visit.actor, visit.session)
    return replace(_without_proofs(visit), session=session)


def _prove(visit: Visit) -> None:
    browser, answer = browsers.of(visit), visit.form.text(PASSKEY)
    if answer and browser is not None:
        passkeys.prove(visit.instance, visit.actor, browser, answer)
    elif visit.form.text(CODE) and not second_factors.ways(visit.instance, visit.actor).password:
        second_factors.prove_code(visit.instance, visit.actor, visit.form.text(CODE))
    else:
        users.prove_own_password(visit.instance, visit.actor, visit.form.text(PASSWORD))


def _without_proofs(visit: Visit) -> Visit:
    values: dict[str, list[str]] = {}
    for name, value in visit.form.pairs():
        if name not in PROOFS:
            values.setdefault(name, []).append(value)
    return replace(visit, form=Form(values))


def _page(visit: Visit) -> Response:
    kept = [(name, value) for name, value in visit.form.pairs() if name not in (*PROOFS, safety.FIELD)]
    ways = second_factors.ways(visit.instance, visit.actor)
    browser = browsers.of(visit) if ways.passkeys else None
    options = passkeys.options(visit.instance, browser, user_id=visit.actor.user_id) if browser else ""
    address = visit.request.url.path
    response = visit.show("reauthentication.html", status=403, kept=kept, address=address, ways=ways, options=options)
    if visit.is_part:
        response.headers["HX-Retarget"] = "body"
        response.headers["HX-Reswap"] = "innerHTML"
    return response
