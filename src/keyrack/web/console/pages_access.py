"""Who can log in where and why, as a map, a list and CSV; granting and taking back; must hold no rule of its own."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response, StreamingResponse

from keyrack.core import cursors, validation
from keyrack.core.hosts import server_list, servers
from keyrack.core.instance import Instance
from keyrack.core.keys import changing_grants, grants, rehearsal, who_can
from keyrack.core.keys.who_can import Way
from keyrack.core.people import groups, named_people
from keyrack.model import Grant, Page, Server
from keyrack.web import bodies
from keyrack.web.console import ends, restrictions, templates
from keyrack.web.console.visits import (
    AFTER,
    CONFIRMED,
    FIRST_PRESS,
    SEEN,
    Asked,
    Visit,
    change,
    cursor_of,
    page,
    paged,
    rehearsed,
    unless_changed,
)

HOSTS, PEOPLE, PEOPLE_LISTED = 40, 50, 30
"""How many are on one page: hosts, people on the map, and people in the list, where each may have many lines."""
MAX = 1000
MAX_LINES = 20
"""Of one person on one host in the list: keys that are entered on an account are a line each."""
# Some spreadsheets take the wide forms of these signs for the narrow ones.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\uff1d", "\uff0b", "\uff0d", "\uff20")
COLUMNS = ("user", "host", "system_user", "fingerprint", "via", "expires_at", "last_used_at", "restrictions", "refused")
"""Of the CSV."""
PEOPLE_BEFORE = "below"
"""The parameter that says how many people come before those that are shown."""
NOBODY = "(no user)"
FIELDS = (
    *("who", "name", "where", "place", "system_user", "ends", "until", "zone", "reason", "break_glass"),
    *restrictions.FIELDS,
)


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a person and a host meet. accounts: as whom they can log in; until: when the first of it ends, if all of it
    ends by itself.
    """

    accounts: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Map:
    """People × hosts. people: those on the page, all: how many there are in all; cells: by user and server id the ways
    in; unknown: hosts of which nothing can be said.
    """

    people: tuple[str, ...]
    all: int
    hosts: tuple[Server, ...]
    cells: Mapping[tuple[str, int], Sequence[Way]]
    unknown: tuple[str, ...]
    page: Page[Server]

    def rows(self) -> list[tuple[str, list[Cell | None]]]:
        """The map's lines: each person with a cell for each host, None where there is no way in."""
        return [(who, [_cell(self.cells.get((who, host.id), ())) for host in self.hosts]) for who in self.people]


def _cell(ways: Sequence[Way]) -> Cell | None:
    if not ways:
        return None
    until = [way.reason.expires_at for way in ways if way.reason.expires_at is not None]
    accounts = ", ".join(dict.fromkeys(way.reason.username for way in ways))
    return Cell(accounts, min(until) if len(until) == len(ways) else None)


def _map(visit: Visit, cursor: str, people: slice = who_can.EVERYBODY, *, last_uses: bool = True) -> Map:
    tag, account, group = (visit.query.get(name, "").strip() for name in ("tag", "account", "group"))
    access_map = who_can.of_hosts(
        visit.instance,
        visit.actor,
        search=visit.query.get("q", "").strip(),
        tag=tag or None,
        system_user=account or None,
        users=frozenset(groups.get(visit.instance, visit.actor, group).members) if group else None,
        people=people,
        last_uses=last_uses,
        cursor=cursor,
        limit=HOSTS,
    )
    cells: dict[tuple[str, int], list[Way]] = {}
    for way in access_map.ways:
        cells.setdefault((way.user or NOBODY, way.server.id), []).append(way)
    shown = tuple(who or NOBODY for who in access_map.people[people])
    unknown = tuple(f"{server.name}: {words}" for server, words in access_map.unknown)
    return Map(shown, len(access_map.people), access_map.servers.items, cells, unknown, access_map.servers)


def access(visit: Visit) -> Response:
    """The map of the workspace, or for those who may not see it, where they themselves can log in."""
    if not visit.may("access:read"):
        return _own(visit)
    if "server" in visit.query:
        return _why(visit)
    listed = visit.query.get("view") == "list"
    most, above = PEOPLE_LISTED if listed else PEOPLE, bodies.identifier(visit.query.get(PEOPLE_BEFORE, "0"))
    # A cell of the map says as whom and until when; when keys were last used stands in the list.
    shown = _map(visit, cursor_of(visit), slice(above, above + most), last_uses=listed)
    filters = {name: visit.query[name] for name in ("q", "tag", "account", "group") if visit.query.get(name)}
    here = {name: value for name, value in visit.query.items() if name != PEOPLE_BEFORE}
    return visit.show(
        "access.html",
        map=shown,
        nobody=NOBODY,
        most_lines=MAX_LINES,
        people=shown.people,
        rows=() if listed else shown.rows(),
        filters=filters,
        listed=listed,
        **paged(visit, shown.page, but=(PEOPLE_BEFORE,)),
        first_people=_address(here) if above else "",
        more_people=_address({**here, PEOPLE_BEFORE: str(above + most)}) if shown.all > above + most else "",
    )


def _own(visit: Visit) -> Response:
    """Where somebody can log in themselves."""
    cursor = cursor_of(visit)
    ways = who_can.find(visit.instance, visit.actor, user=visit.actor.name, cursor=cursor, limit=MAX)
    first, onward = "/access" if cursor else "", _address({AFTER: ways.next}) if ways.next else ""
    return visit.show("my_access.html", ways=ways.items, unknown=ways.unknown, first=first, next=onward)


def _address(query: Mapping[str, str]) -> str:
    return "/access" + (f"?{urlencode(query)}" if query else "")


def _why(visit: Visit) -> Response:
    server, user = visit.query["server"], visit.query.get("user", "")
    page = who_can.find(visit.instance, visit.actor, server=server, user=user or None, limit=MAX)
    host = servers.named(visit.instance, visit.actor, server)
    return visit.show("why.html", ways=page.items, host=host, user=user, more=page.next is not None)


def as_csv(visit: Visit) -> Response:
    """All that the filters leave as CSV, host by host: a line for each way in, and for each unknown host."""
    first = _map(visit, "")

    def lines() -> Iterator[str]:
        yield _line(*COLUMNS)
        shown: Map | None = first
        while shown is not None:
            for words in shown.unknown:
                yield _line("?", "", "", "", words, "", "", "", "")
            for (who, _), ways in sorted(shown.cells.items()):
                for way in ways:
                    of = way.reason.credential or way.reason.grant
                    via = f"{way.kind} {of.id if of else ''}"
                    named = (who, way.server.name, way.reason.username, way.reason.fingerprint, via)
                    times = (at.isoformat() if at else "" for at in (way.reason.expires_at, way.last_used_at))
                    yield _line(*named, *times, ",".join(way.reason.options), way.refused or "")
            after = shown.page.after
            shown = None if after is None else _map(visit, cursors.write(after))

    headers = {"Content-Disposition": 'attachment; filename="access.csv"'}
    return StreamingResponse(lines(), media_type="text/csv; charset=utf-8", headers=headers)


def _line(*values: str) -> str:
    text = io.StringIO()
    csv.writer(text).writerow([_harmless(value) for value in values])
    return text.getvalue()


def _harmless(value: str) -> str:
    """The value, quoted if a spreadsheet would take it for a formula."""
    return f"'{value}" if value[:1] in _FORMULAS else value


def granting(visit: Visit) -> Response:
    """The form to grant access."""
    people = named_people.find(visit.instance, visit.actor, limit=200).items if visit.may("people:read") else ()
    teams = groups.find(visit.instance, visit.actor, limit=200).items if visit.may("people:read") else ()
    hosts = server_list.find(visit.instance, visit.actor, limit=200).items
    given = {name: visit.form.text(name) or visit.query.get(name, "") for name in FIELDS}
    return visit.show(
        "grant.html",
        given=given,
        restrictions=restrictions.asked(visit.form),
        permissions=restrictions.PERMISSIONS,
        ends=ends.ENDS,
        people=[one.name for one in people],
        groups=[one.name for one in teams],
        hosts=[one.name for one in hosts],
        tags=sorted({tag for one in hosts for tag in one.tags}),
    )


def _give(visit: Visit, instance: Instance) -> Grant:
    form = visit.form
    name, place = form.text("name"), form.text("place")
    of_group, where = form.text("who") == "group", form.text("where")
    return grants.give_named(
        instance,
        visit.actor,
        user=None if of_group else name,
        group=name if of_group else None,
        server=place if where == "server" else None,
        tag=place if where == "tag" else None,
        all_servers=where == "all",
        system_user=form.text("system_user"),
        expires_at=validation.end(instance.now(), None, duration=ends.chosen(visit)),
        restrictions=restrictions.asked(form),
        reason=form.text("reason") or None,
        break_glass=form.flag("break_glass"),
    )


def grant(visit: Visit) -> Response:
    """Show what a grant would do, and give it once that was confirmed."""
    if not visit.form.flag(CONFIRMED):
        done = rehearsal.rehearse(visit.instance, visit.actor, partial(_give, visit))
        hidden: list[tuple[str, Any]] = [(name, visit.form.text(name)) for name in FIELDS]
        return visit.show(
            "grant_preview.html",
            grant=done.answer,
            named=grants.names(visit.instance, visit.actor, [done.answer], written=True),
            rules=restrictions.said(done.answer.restrictions),
            done=done,
            hidden=[*hidden, (CONFIRMED, "yes")],
        )
    return visit.go("/access", f"{_sentence(visit, _give(visit, visit.instance))}.")


def _sentence(visit: Visit, grant: Grant) -> str:
    return grants.names(visit.instance, visit.actor, [grant], written=True).sentence(grant)


def all_grants(visit: Visit) -> Response:
    """The grants there are."""
    page = grants.page(visit.instance, visit.actor, cursor=cursor_of(visit), limit=100)
    named = grants.names(visit.instance, visit.actor, page.items)
    return visit.show("grants.html", grants=page.items, named=named, in_words=restrictions.said, **paged(visit, page))


def taking(visit: Visit) -> Response:
    """What taking a grant back would do."""
    number = visit.number("grant")
    grant = grants.get(visit.instance, visit.actor, number)
    done = rehearsal.rehearse(
        visit.instance, visit.actor, lambda instance: grants.take_back(instance, visit.actor, number)
    )
    named = grants.names(visit.instance, visit.actor, [grant])
    return visit.show("take_back.html", grant=grant, named=named, done=done)


def take(visit: Visit) -> Response:
    """Take a grant back."""
    grants.take_back(visit.instance, visit.actor, visit.number("grant"))
    return visit.go("/grants", "The grant is taken back; hosts are told at once.")


def changing(visit: Visit) -> Response:
    """The forms that change the end of a grant, and its restrictions and reason."""
    grant = grants.get(visit.instance, visit.actor, visit.number("grant"))
    refused = visit.request.url.path.endswith("/restrict")
    return visit.show(
        "change_grant.html",
        grant=grant,
        named=grants.names(visit.instance, visit.actor, [grant]),
        ends=ends.ENDS[1:],
        rules=restrictions.said(grant.restrictions),
        seen_end=ends.seen(grant.expires_at),
        seen_terms=_seen_terms(grant),
        restrictions=restrictions.asked(visit.form) if refused else grant.restrictions,
        reason=visit.form.text("reason") if refused else grant.reason or "",
        refused=refused,
        permissions=restrictions.PERMISSIONS,
    )


def _seen_terms(grant: Grant) -> str:
    return json.dumps([dict(grant.restrictions), grant.reason], sort_keys=True)


def restrict(visit: Visit) -> Response:
    """Show what other restrictions of a grant change, and set them once that was confirmed."""
    number = visit.number("grant")

    def seen(instance: Instance) -> str:
        return _seen_terms(grants.get(instance, visit.actor, number))

    def set_terms(instance: Instance) -> Grant:
        wanted, reason = restrictions.asked(visit.form), visit.form.text("reason").strip()
        return changing_grants.change(instance, visit.actor, number, restrictions=wanted, reason=reason)

    if not visit.form.flag(CONFIRMED):
        grant = grants.get(visit.instance, visit.actor, number)
        done = rehearsal.rehearse(
            visit.instance,
            visit.actor,
            lambda instance: unless_changed(replace(visit, instance=instance), "grants:write", seen, set_terms),
        )
        rows = restrictions.difference(grant.restrictions, done.answer.restrictions)
        if grant.reason != done.answer.reason:
            rows.append(("Why", grant.reason or "nothing said", done.answer.reason or "nothing said"))
        return visit.show(
            "restrict_preview.html",
            title="Change a grant",
            words=f"{_sentence(visit, grant)}.",
            rows=rows,
            done=done,
            back=f"/grants/{number}/renew",
            hidden=restrictions.kept(visit.form, SEEN, "reason"),
        )
    unless_changed(visit, "grants:write", seen, set_terms)
    return visit.go("/grants", "The grant is changed: it holds from the next login on; sessions that are open go on.")


def renewing(visit: Visit) -> Asked:
    """What another end of a grant does."""
    grant = grants.get(visit.instance, visit.actor, visit.number("grant"))
    done = rehearsed(visit, partial(_renew, visit))
    words = "Hosts are told at once and end it by themselves; keys that something else lets in stay."
    title, back = "Another end for this grant?", f"/grants/{grant.id}/renew"
    return ends.asked(visit, title, grant.expires_at, [words], back, done, what=_sentence(visit, grant))


def _renew(visit: Visit, instance: Instance) -> Grant:
    visit, number = replace(visit, instance=instance), visit.number("grant")

    def seen(instance: Instance) -> str:
        return ends.seen(grants.get(instance, visit.actor, number).expires_at)

    def set_end(instance: Instance) -> Grant:
        return changing_grants.renew(instance, visit.actor, number, duration=ends.chosen(visit))

    return unless_changed(visit, "grants:write", seen, set_end)


def renew(visit: Visit) -> Response:
    """Give a grant another end."""
    made = _renew(visit, visit.instance)
    assert made.expires_at is not None
    return visit.go("/grants", f"The grant ends {templates.exact(made.expires_at)}.")


PAGES = (
    page("/access", access),
    page("/access.csv", as_csv, "access:read"),
    page("/access/grant", granting, "grants:write"),
    change("/access/grant", grant, "grants:write", again=granting, preview=FIRST_PRESS),
    page("/grants", all_grants, "grants:read"),
    page("/grants/{grant}/renew", changing, "grants:write"),
    change("/grants/{grant}/renew", renew, "grants:write", again=changing, asks=renewing),
    change("/grants/{grant}/restrict", restrict, "grants:write", again=changing, preview=FIRST_PRESS),
    page("/grants/{grant}/remove", taking, "grants:write"),
    change("/grants/{grant}/remove", take, "grants:write", preview="/grants/{grant}/remove"),
)
