"""The first visit, three steps to a login: a password, a key, the line; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core.keys import user_keys
from keyrack.core.people import first_visit
from keyrack.errors import Kind, Refusal
from keyrack.web.console import pages_own_sign_in
from keyrack.web.console.visits import Visit, change, page

HERE = "/welcome"


def welcome(visit: Visit) -> Response:
    """The step that comes next; `?step=2` leaves the first one."""
    progress = first_visit.get(visit.instance, visit.actor)
    step = 3 if progress.keys else 2 if progress.own_password or visit.query.get("step") == "2" else 1
    if visit.refusal is not None:
        step = 2 if visit.form.text("public_key") or visit.refusal.field == "public_key" else 1
    if visit.is_part:
        return visit.show("_welcome_lines.html", progress=progress)
    return visit.show("welcome.html", progress=progress, step=step, adds=visit.may(user_keys.ADD))


def set_password(visit: Visit) -> Response:
    """The first step."""
    pages_own_sign_in.set_own_password(visit)
    return visit.go(HERE, "Your password is changed.")


def add_key(visit: Visit) -> Response:
    """The second step."""
    public_key = visit.form.text("public_key").strip()
    comment = public_key.split(None, 2)[2:]
    title = comment[0][:100] if comment else f"{visit.actor.name}'s key"
    try:
        user_keys.add(visit.instance, visit.actor, title=title, public_key=public_key)
    except Refusal as refusal:
        if refusal.kind in (Kind.INVALID, Kind.TAKEN):
            raise Refusal(refusal.kind, refusal.code, refusal.message, field="public_key") from None
        raise
    return visit.go(HERE, "Your key is registered.")


PAGES = (
    page(HERE, welcome),
    change(f"{HERE}/password", set_password, "iam:self", again=welcome, hashes=True, undo="/settings/sign-in/password"),
    change(f"{HERE}/key", add_key, user_keys.ADD, again=welcome, undo="/remove-key/{fingerprint:path}"),
)
