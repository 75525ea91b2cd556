"""Who can log in where and why, as a map, a list and CSV; granting and taking back; must hold no rule of its own."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from keyrack.core import validation
from keyrack.core.hosts import servers
from keyrack.core.instance import Instance
from keyrack.core.keys import grants, rehearsal, who_can
from keyrack.core.keys.who_can import Way
from keyrack.core.people import groups, named_people
from keyrack.errors import Refusal
from keyrack.model import Grant, Server
from keyrack.web.console.visits import Visit, change, offset_of, page

HOSTS = 40
MOST = 1000
NOBODY = "(no user)"
ENDS = (("", "never"), ("1h", "1 h"), ("12h", "12 h"), ("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days"))
FIELDS = ("who", "name", "where", "place", "system_user", "ends", "reason")


@dataclass(frozen=True, slots=True)
class Map:
    """People × hosts. cells: by user and server id the ways in; unknown: hosts of which nothing can be said."""

    people: tuple[str, ...]
    hosts: tuple[Server, ...]
    cells: Mapping[tuple[str, int], tuple[Way, ...]]
    unknown: tuple[str, ...]
    total: int
    offset: int


def _map(visit: Visit) -> Map:
    offset = offset_of(visit)
    tag, account, group = (visit.query.get(name, "").strip() for name in ("tag", "account", "group"))
    found = servers.find(visit.instance, visit.actor, search=visit.query.get("q", ""), offset=offset, limit=HOSTS)
    members = set(groups.get(visit.instance, visit.actor, group).members) if group else None
    hosts = tuple(one for one in found.items if not tag or tag in one.tags)
    cells: dict[tuple[str, int], list[Way]] = {}
    unknown = []
    for host in hosts:
        try:
            ways = who_can.find(
                visit.instance, visit.actor, server=str(host.id), system_user=account or None, limit=MOST
            )
        except Refusal as refusal:
            unknown.append(f"{host.name}: {refusal.message}")
            continue
        for way in ways.items:
            who = way.user or NOBODY
            if members is None or who in members:
                cells.setdefault((who, host.id), []).append(way)
    people = sorted({who for who, _ in cells}, key=lambda name: (name == NOBODY, name))
    shown = {place: tuple(ways) for place, ways in cells.items()}
    return Map(tuple(people), hosts, shown, tuple(unknown), found.total, offset)


def access(visit: Visit) -> Response:
    """The map of the workspace, or for those who may not see it, where they themselves can log in."""
    if not visit.may("access:read"):
        found = who_can.find(visit.instance, visit.actor, user=visit.actor.name, limit=MOST)
        return visit.show("my_access.html", ways=found.items, unknown=found.unknown)
    if "server" in visit.query:
        return _why(visit)
    shown = _map(visit)
    onward = shown.offset + HOSTS
    kept = {name: visit.query[name] for name in ("q", "tag", "account", "group") if visit.query.get(name)}
    return visit.show(
        "access.html",
        map=shown,
        filters=kept,
        listed=visit.query.get("view") == "list",
        first=_address(kept) if shown.offset else "",
        next=_address(kept, str(onward)) if shown.total > onward else "",
    )


def _address(kept: Mapping[str, str], start: str = "") -> str:
    values = {**kept, **({"from": start} if start else {})}
    return "/access" + (f"?{urlencode(values)}" if values else "")


def _why(visit: Visit) -> Response:
    server, user = visit.query["server"], visit.query.get("user", "")
    found = who_can.find(visit.instance, visit.actor, server=server, user=user or None, limit=MOST)
    host = servers.named(visit.instance, visit.actor, server)
    return visit.show("why.html", ways=found.items, host=host, user=user)


def as_csv(visit: Visit) -> Response:
    """The map's hosts as CSV: one line a way in."""
    shown = _map(visit)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("user", "host", "system_user", "fingerprint", "via", "expires_at", "last_used_at"))
    for (who, _), ways in sorted(shown.cells.items()):
        for way in ways:
            of = way.line.credential or way.line.grant
            row = (
                who,
                way.server.name,
                way.line.username,
                way.line.fingerprint,
                f"{way.kind} {of.id if of else ''}",
                way.line.expires_at.isoformat() if way.line.expires_at else "",
                way.last_used_at.isoformat() if way.last_used_at else "",
            )
            writer.writerow([_harmless(value) for value in row])
    headers = {"Content-Disposition": 'attachment; filename="access.csv"'}
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8", headers=headers)


def _harmless(value: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def granting(visit: Visit) -> Response:
    """The form to grant access."""
    people = named_people.find(visit.instance, visit.actor, limit=200).items if visit.may("people:read") else ()
    teams = groups.find(visit.instance, visit.actor, limit=200).items if visit.may("people:read") else ()
    hosts = servers.find(visit.instance, visit.actor, limit=200).items
    given = {name: visit.form.text(name) or visit.query.get(name, "") for name in FIELDS}
    return visit.show(
        "grant.html",
        given=given,
        ends=ENDS,
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
        expires_at=validation.end(instance.now(), None, duration=form.text("ends") or None),
        reason=form.text("reason") or None,
    )


def grant(visit: Visit) -> Response:
    """Show what a grant would do, and give it once that was confirmed."""
    if not visit.form.flag("confirmed"):
        done = rehearsal.rehearse(visit.instance, visit.actor, partial(_give, visit))
        hidden: list[tuple[str, Any]] = [(name, visit.form.text(name)) for name in FIELDS]
        return visit.show("grant_preview.html", done=done, hidden=[*hidden, ("confirmed", "yes")])
    _give(visit, visit.instance)
    place = "all hosts" if visit.form.text("where") == "all" else visit.form.text("place")
    words = f"{visit.form.text('name')} can log in as {visit.form.text('system_user')} on {place}."
    return visit.go("/access", words)


def all_grants(visit: Visit) -> Response:
    """The grants there are."""
    offset = offset_of(visit)
    found = grants.page(visit.instance, visit.actor, offset=offset, limit=100)
    named = grants.names(visit.instance, visit.actor, found.items)
    onward = offset + 100
    return visit.show(
        "grants.html",
        grants=found.items,
        named=named,
        first="/grants" if offset else "",
        next=f"/grants?from={onward}" if found.total > onward else "",
    )


def taking(visit: Visit) -> Response:
    """What taking a grant back would do."""
    number = visit.number("grant")
    found = grants.get(visit.instance, visit.actor, number)
    done = rehearsal.rehearse(
        visit.instance, visit.actor, lambda instance: grants.take_back(instance, visit.actor, number)
    )
    named = grants.names(visit.instance, visit.actor, [found])
    return visit.show("take_back.html", grant=found, named=named, done=done)


def take(visit: Visit) -> Response:
    """Take a grant back."""
    grants.take_back(visit.instance, visit.actor, visit.number("grant"))
    return visit.go("/grants", "The grant is taken back; hosts are told at once.")


PAGES = (
    page("/access", access),
    page("/access.csv", as_csv, "access:read"),
    page("/access/grant", granting, "grants:write"),
    change("/access/grant", grant, "grants:write", again=granting),
    page("/grants", all_grants, "grants:read"),
    page("/grants/{grant}/remove", taking, "grants:write"),
    change("/grants/{grant}/remove", take, "grants:write"),
)
