"""Settings: tokens, the policy of keys, and where else there is something to set; must hold no rule of its own."""

from __future__ import annotations

from starlette.responses import Response

from keyrack.core import validation
from keyrack.core.people import access_keys, api_tokens, tokens
from keyrack.web.console.visits import Visit, change, cursor_of, page, paged

PER_PAGE = 100
ENDS = (("1h", "1 h"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"), ("", "never"))


def settings(visit: Visit) -> Response:
    """Everything that is set here, and what the instance was started with."""
    found = None
    if visit.may("people:read"):
        found = tokens.find(visit.instance, visit.actor, cursor=cursor_of(visit), limit=PER_PAGE)
    return visit.show(
        "settings.html",
        tokens=found.items if found else (),
        access_keys=access_keys.find(visit.instance, visit.actor),
        config=visit.instance.settings,
        ends=ENDS,
        **(paged(visit, found) if found else {"first": "", "next": ""}),
    )


def add_token(visit: Visit) -> Response:
    """Make a token of one's own, and show its secret this once."""
    made = api_tokens.make(
        visit.instance,
        visit.actor,
        name=visit.form.text("name"),
        scopes=visit.form.text("scopes").replace(",", " ").split(),
        expires_at=validation.end(visit.instance.now(), None, duration=visit.form.text("ends") or None),
    )
    return visit.show(
        "secret.html", title=f"Token {made.bearer.token.name}", secret=made.secret, back="/settings", status=200
    )


def add_access_key(visit: Visit) -> Response:
    """Make an access key of one's own, and show its secret this once."""
    made = access_keys.create(visit.instance, visit.actor, description=visit.form.text("description"))
    return visit.show(
        "secret.html", title=f"Secret of access key {made.id}", secret=made.secret, back="/settings", status=200
    )


def remove_access_key(visit: Visit) -> Response:
    """Take an access key away."""
    access_keys.delete(visit.instance, visit.actor, visit.path["key"])
    return visit.go("/settings", "The access key opens nothing any more.")


def revoke_token(visit: Visit) -> Response:
    """Revoke a token."""
    gone = tokens.revoke_id(visit.instance, visit.actor, visit.number("id"))
    return visit.go("/settings", f"The token {gone.token.name} of {gone.user.name} opens nothing any more.")


PAGES = (
    page("/settings", settings),
    change("/settings/tokens", add_token, "iam:self", again=settings, dangerous=True),
    change("/settings/access-keys", add_access_key, "iam:self", again=settings, dangerous=True, judged=True),
    change("/settings/access-keys/{key}/remove", remove_access_key, "iam:self", judged=True),
    change("/settings/tokens/{id}/revoke", revoke_token, "iam:self", judged=True),
)
