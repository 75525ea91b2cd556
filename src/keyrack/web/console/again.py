"""Before what is dangerous has the person prove again who they are, and keeps what they had typed; must do no more."""

from __future__ import annotations

from dataclasses import replace

from starlette.responses import Response

from keyrack.core.people import users, web_sessions
from keyrack.errors import Kind, Refusal
from keyrack.web.console import safety
from keyrack.web.console.visits import Form, Visit

PASSWORD = "proof_password"  # noqa: S105 — a field's name
OURS = (PASSWORD, safety.FIELD)


def asked(visit: Visit) -> Visit | Response:
    """The visit as it may go on, or the page that asks for a proof first. Raises Refusal THROTTLED."""
    assert visit.session is not None
    if web_sessions.is_proven(visit.instance, visit.session):
        return visit
    sent = visit.form.text(PASSWORD)
    if not sent:
        return _page(visit)
    try:
        users.prove_own_password(visit.instance, visit.actor, sent)
    except Refusal as refusal:
        if refusal.kind not in (Kind.UNAUTHENTICATED, Kind.THROTTLED):
            raise
        return _page(replace(visit, refusal=refusal))
    session = web_sessions.note_proof(visit.instance, visit.actor, visit.session)
    kept = [(name, value) for name, value in visit.form.pairs() if name != PASSWORD]
    values: dict[str, list[str]] = {}
    for name, value in kept:
        values.setdefault(name, []).append(value)
    return replace(visit, session=session, form=Form(values))


def _page(visit: Visit) -> Response:
    kept = [(name, value) for name, value in visit.form.pairs() if name not in OURS]
    return visit.show("again.html", status=403, kept=kept, address=visit.request.url.path)
