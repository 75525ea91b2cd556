"""One request of a person as a page sees it, and what a page and a change are; must know no page and hold no rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from keyrack import policy
from keyrack.core import cursors, preconditions
from keyrack.core.instance import Instance
from keyrack.core.keys import rehearsal
from keyrack.core.keys.rehearsal import Rehearsed
from keyrack.errors import Kind, Refusal
from keyrack.model import Actor
from keyrack.model import Page as Piece
from keyrack.store.people.web_sessions import WebSession
from keyrack.web import bodies
from keyrack.web.api import ORDINARY_STATUS
from keyrack.web.console import safety, templates

STATUS = {**ORDINARY_STATUS, Kind.INVALID: 422, Kind.TAKEN: 409, Kind.CHANGED: 409, Kind.LIMIT: 409}
FORM_AGAIN = (
    Kind.INVALID,
    Kind.TAKEN,
    Kind.CHANGED,
    Kind.LIMIT,
    Kind.MISSING,
    Kind.UNAUTHENTICATED,
    Kind.THROTTLED,
)
"""Refusals that a person can mend in the form: it is shown again with what they wrote, if its page is still there."""

T = TypeVar("T")

SEEN = "seen"
"""The field of a form that says what it showed when it was made."""
CONFIRMED = "confirmed"
"""The field by which a form says that the person has seen what it does."""
FIRST_PRESS = "the first press"
AFTER = "after"
"""The parameter with the place in a list after which a page begins."""

# The rail, in its order: the words, the words for those who may not see everybody's, and the address.
RAIL = (
    ("Overview", "Overview", "/"),
    ("My keys", "My keys", "/keys"),
    ("Hosts", "Hosts", "/hosts"),
    ("People", "People", "/people"),
    ("Access", "My access", "/access"),
    ("Requests", "Requests", "/requests"),
    ("Repositories", "Repositories", "/repositories"),
    ("Activity", "Activity", "/activity"),
    ("Settings", "Settings", "/settings"),
)

BELOW = {
    "/groups": "/people",
    "/members": "/people",
    "/offboard": "/people",
    "/offboardings": "/people",
    "/end-session": "/people",
    "/reset-proofs": "/people",
    "/rights": "/people",
    "/password": "/people",
    "/grants": "/access",
    "/freezes": "/access",
    "/revoke": "/keys",
    "/revoked": "/keys",
    "/lift": "/keys",
    "/remove-key": "/keys",
    "/renew-key": "/keys",
    "/confirm-key": "/keys",
    "/stop-source": "/people",
    "/alarms": "/activity",
    "/damaged": "/hosts",
}
"""The entry of the rail that is marked on pages whose address begins with another word."""


class Form:
    """The fields of a form that was sent, each with all its values; {} where none was."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self._values = values

    def text(self, name: str, otherwise: str = "") -> str:
        """A field's first value, as it was typed."""
        return next(iter(self._values.get(name, ())), otherwise)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def texts(self, name: str) -> tuple[str, ...]:
        """All values of a field, such as of boxes that were ticked."""
        return tuple(self._values.get(name, ()))

    def flag(self, name: str) -> bool:
        """Whether a box was ticked."""
        return bool(self.text(name))

    def number(self, name: str) -> int:
        """An id in a field; what is none is 0, which nothing has."""
        return bodies.identifier(self.text(name))

    def pairs(self) -> list[tuple[str, str]]:
        """Every field with each of its values."""
        return [(name, value) for name, values in self._values.items() for value in values]


@dataclass(frozen=True)
class Visit:
    """One request of a person.

    path, query: texts by name; form: what was sent; session: None on pages that ask no sign-in; workspace: its
    name, read with the session, so that to show a page asks the database nothing; refusal: why a form is
    shown again; pages: all that there is, for the rail.
    """

    instance: Instance
    actor: Actor
    request: Request
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Form
    session: WebSession | None
    pages: Mapping[str, ConsolePage]
    now: datetime
    workspace: str = ""
    refusal: Refusal | None = None

    def number(self, name: str) -> int:
        """An id in the path; what is none is 0, which nothing has."""
        return bodies.identifier(self.path[name])

    def may(self, action: str) -> bool:
        """Whether the person may do an action: for what a page shows, never to decide whether it is done."""
        return policy.may(self.actor, action) is None

    @property
    def is_part(self) -> bool:
        """Whether the browser asks for a part of a page that it shows already."""
        return "hx-request" in self.request.headers and "hx-boosted" not in self.request.headers

    @property
    def target(self) -> str:
        """The id of the element that the part is for."""
        return self.request.headers.get("hx-target", "")

    @cached_property
    def secret(self) -> str:
        """The cookie that forms of this visit are for; a new one where there is none yet."""
        name = safety.SESSION if self.session else safety.FORM
        return safety.cookie(self.instance, self.request, name) or safety.new_secret()

    def show(self, template: str, /, *, status: int = 0, **values: Any) -> Response:
        """A page, or a part of one, whose template's name begins with an underscore.

        Where a form is shown again the refusal's status is the answer's. Templates know `visit`, `refusal`, `now`,
        `csrf` and what is given.
        """
        is_whole = not template.startswith("_")
        said = safety.cookie(self.instance, self.request, safety.SAID) if is_whole else ""
        given = {
            "visit": self,
            "actor": self.actor,
            "refusal": self.refusal,
            "now": self.now,
            "csrf": safety.token(self.instance, self.secret),
            "said": safety.unsigned(self.instance, said),
            "rail": self.rail(self.request.url.path) if self.session else (),
            "workspace": self.workspace,
            **values,
        }
        code = status or (STATUS[self.refusal.kind] if self.refusal else 200)
        response = HTMLResponse(templates.render(template, given), code)
        if said:
            safety.set_cookie(self.instance, self.request, response, safety.SAID, "")
        if self.session is None and not safety.cookie(self.instance, self.request, safety.FORM):
            safety.set_cookie(self.instance, self.request, response, safety.FORM, self.secret)
        return response

    def go(self, address: str, said: str = "") -> Response:
        """Send the browser to another page; said: a sentence about what was done, which that page shows once."""
        if "hx-request" in self.request.headers:
            response = Response(status_code=204, headers={"HX-Redirect": address})
        else:
            response = RedirectResponse(address, 303)
        if said:
            value = safety.signed(self.instance, said[:1000])
            safety.set_cookie(self.instance, self.request, response, safety.SAID, value, seconds=60)
        return response

    def rail(self, here: str) -> list[tuple[str, str, bool]]:
        """What the rail leads to: words, address, and whether the page, whose address is here, is below that."""
        first = "/" + here.split("/")[1]
        here = here.replace(first, BELOW.get(first, first), 1)
        shown = []
        for words, own, address in RAIL:
            page = self.pages.get(address)
            if page is not None and self.may(page.action):
                inside = here == address or (address != "/" and here.startswith(address + "/"))
                shown.append((words if self.may("access:read") else own, address, inside))
        return shown


def cursor_of(visit: Visit) -> str:
    """Where a page of a list begins, as its address says: a cursor of the core's, "" for the first page."""
    return visit.query.get(AFTER, "")


def paged(visit: Visit, piece: Piece[Any], *, but: Sequence[str] = ()) -> dict[str, Any]:
    """The addresses of a list's first and next page, for p.pager: this one's, with all else that it asks, but for these
    names; "" for none.
    """
    kept = {name: value for name, value in visit.query.items() if name not in (AFTER, *but)}
    onward = {} if piece.after is None else {**kept, AFTER: cursors.write(piece.after)}
    return {"first": _here(visit, kept) if cursor_of(visit) else "", "next": _here(visit, onward) if onward else ""}


def _here(visit: Visit, query: Mapping[str, str]) -> str:
    path = quote(visit.request.url.path, safe="/:")
    return f"{path}?{urlencode(query)}" if query else path


def unless_changed(visit: Visit, action: str, seen: Callable[[Instance], str], change: Callable[[Instance], T]) -> T:
    """Make a change that a form asks for, if what it was made of is still so: two tabs do not overwrite each other.

    seen: what the form's field SEEN would hold now, from this instance (p.seen writes it); change: the one to make, on
    the instance that it gets. Raises Refusal CHANGED, and as the change does.
    """
    was = visit.form.text(SEEN)
    return preconditions.guarded(visit.instance, visit.actor, action, lambda inner: seen(inner) == was, change)


def rehearsed(visit: Visit, change: Callable[[Instance], T]) -> Rehearsed[T] | None:
    """What a change would do to who can log in; None where that may not be seen. Raises as the change does."""
    return rehearsal.rehearse(visit.instance, visit.actor, change) if visit.may("access:read") else None


Handler = Callable[[Visit], Response]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a change that cannot be taken back says of itself before it is made.

    title: a question; words: sentences about what it does; button: what it does, in its own words; back: where who does
    not want it goes; done: a rehearsal of it, where it concerns who can log in (core/keys/rehearsal.py); fixed: fields
    as they are sent with the confirmation, such as an end that was shown as a time; takes: whether it takes something
    away.
    """

    title: str
    words: Sequence[str]
    button: str
    back: str
    done: Rehearsed[Any] | None = None
    fixed: Mapping[str, str] = field(default_factory=dict)
    takes: bool = True


@dataclass(frozen=True, slots=True)
class ConsolePage:
    """A page, or a change that one of its forms makes.

    path: with {names}, {name:path} where a name holds slashes; action: the name in policy.ACTIONS that whoever sees it
    or does it needs: others get 403 before anything is asked; the core decides again. again: the page that shows the
    form with what was typed, where a change is refused; asks: what the change says before it is made, to be confirmed;
    dangerous: the person must have proven lately who they are;
    preview: the page that says what the change does before it is made, or FIRST_PRESS where it does so itself unless
    CONFIRMED is sent; undo: the path of the change that takes it back; keeps: False where nothing of it lasts. A change
    has one of asks, preview and undo (decision 353);
    open: for anybody; hashes: it may hash a password; judged: what lets somebody in may also be the thing itself, such
    as a role in a repository, so that the core alone says who may; from_outside: a program sends it, which proves
    itself by what it sends, and no form of ours; typed: refuses, before the person is asked to prove who they are, what
    they typed wrong; None tries the whole change out where `again` would show its form (`judged_first`).
    """

    method: str
    path: str
    handler: Handler
    action: str
    again: Handler | None = None
    dangerous: bool = False
    open: bool = False
    hashes: bool = False
    judged: bool = False
    from_outside: bool = False
    asks: Callable[[Visit], Asked] | None = None
    preview: str = ""
    undo: str = ""
    keeps: bool = True
    typed: Callable[[Visit], None] | None = None


def judged_first(page: ConsolePage, visit: Visit) -> None:
    """Raise what would be refused of a dangerous change, so that nobody proves who they are for nothing."""
    if page.typed is not None:
        page.typed(visit)
    elif page.again is not None and page.asks is None:
        rehearsal.try_out(
            visit.instance, visit.actor, page.action, lambda inner: page.handler(replace(visit, instance=inner))
        )


def page(
    path: str, handler: Handler, action: str = "iam:self", *, open: bool = False, judged: bool = False
) -> ConsolePage:
    """A page, GET."""
    return ConsolePage("GET", path, handler, action, open=open, judged=judged)


def change(
    path: str,
    handler: Handler,
    action: str,
    *,
    again: Handler | None = None,
    dangerous: bool = False,
    open: bool = False,
    hashes: bool = False,
    judged: bool = False,
    from_outside: bool = False,
    asks: Callable[[Visit], Asked] | None = None,
    preview: str = "",
    undo: str = "",
    keeps: bool = True,
    typed: Callable[[Visit], None] | None = None,
) -> ConsolePage:
    """What a form does, POST; it ends by `visit.go(…, said)` or by showing a part."""
    return ConsolePage(
        method="POST",
        path=path,
        handler=handler,
        action=action,
        again=again,
        dangerous=dangerous,
        open=open,
        hashes=hashes or dangerous,
        judged=judged,
        from_outside=from_outside,
        asks=asks,
        preview=preview,
        undo=undo,
        keeps=keeps,
        typed=typed,
    )
