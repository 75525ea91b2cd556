"""Keys that are entered on accounts of one host, and the host's own name, address and tags; must hold no rule."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

from starlette.responses import Response

from keyrack.core import validation
from keyrack.core.hosts import server_changes, servers, system_users
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, rehearsal, renewals, restricting
from keyrack.model import Credential, Server
from keyrack.web.console import ends, restrictions, templates
from keyrack.web.console.visits import (
    CONFIRMED,
    FIRST_PRESS,
    SEEN,
    Asked,
    Visit,
    change,
    page,
    rehearsed,
    unless_changed,
)

MAX = 200


def _server(visit: Visit) -> Server:
    return servers.get(visit.instance, visit.actor, visit.number("server"))


def adding(visit: Visit) -> Response:
    """The form that puts a key on an account of a host."""
    server = _server(visit)
    known: tuple[str, ...] = ()
    if visit.may("systemusers:read"):
        piece = system_users.find(visit.instance, visit.actor, server.id, limit=MAX)
        known = tuple(one.username for one in piece.items)
    accounts = [("", "choose one"), *((one, one) for one in known)] if known else []
    return visit.show(
        "host_key_add.html",
        server=server,
        accounts=accounts,
        ends=ends.ENDS,
        restrictions=restrictions.asked(visit.form),
        permissions=restrictions.PERMISSIONS,
    )


def add(visit: Visit) -> Response:
    """Put a key on an account of a host."""
    form, number = visit.form, visit.number("server")
    made = credentials.add(
        visit.instance,
        visit.actor,
        number,
        label=form.text("label"),
        username=form.text("username").strip(),
        public_key=form.text("public_key"),
        duration=ends.chosen(visit),
        restrictions=restrictions.asked(form),
        break_glass=form.flag("break_glass"),
    )
    return visit.go(
        f"/hosts/{number}", f"The key {made.label} opens {made.username} as soon as the host has heard of it."
    )


def key(visit: Visit) -> Response:
    """One key that was entered on an account: what it may, another end, its removal."""
    credential = credentials.get(visit.instance, visit.actor, visit.number("server"), visit.number("id"))
    refused = visit.request.url.path.endswith("/restrict")
    return visit.show(
        "host_key.html",
        server=_server(visit),
        key=credential,
        rules=restrictions.said(credential.restrictions),
        ends=ends.ENDS[1:],
        seen_end=ends.seen(credential.expires_at),
        seen_restrictions=_seen_restrictions(credential),
        restrictions=restrictions.asked(visit.form) if refused else credential.restrictions,
        refused=refused,
        permissions=restrictions.PERMISSIONS,
    )


def _seen_restrictions(credential: Credential) -> str:
    return json.dumps(dict(credential.restrictions), sort_keys=True)


def restrict(visit: Visit) -> Response:
    """Show what other restrictions of such a key change, and set them once that was confirmed."""
    server, number = visit.number("server"), visit.number("id")

    def seen(instance: Instance) -> str:
        return _seen_restrictions(credentials.get(instance, visit.actor, server, number))

    def set_restrictions(instance: Instance) -> Credential:
        credentials.get(instance, visit.actor, server, number)
        return restricting.credential(instance, visit.actor, number, restrictions.asked(visit.form))

    if not visit.form.flag(CONFIRMED):
        held = credentials.get(visit.instance, visit.actor, server, number)
        done = rehearsal.rehearse(
            visit.instance,
            visit.actor,
            lambda instance: unless_changed(
                replace(visit, instance=instance), "credentials:write", seen, set_restrictions
            ),
        )
        return visit.show(
            "restrict_preview.html",
            title=held.label,
            words=f"A key on {held.username} of {_server(visit).name}.",
            rows=restrictions.difference(held.restrictions, done.answer.restrictions),
            done=done,
            back=f"/hosts/{server}/keys/{number}",
            hidden=restrictions.kept(visit.form, SEEN),
        )
    made = unless_changed(visit, "credentials:write", seen, set_restrictions)
    words = f"The key {made.label} may do what stands here from its next login on; sessions that are open go on."
    return visit.go(f"/hosts/{server}/keys/{number}", words)


def renewing(visit: Visit) -> Asked:
    """What another end of such a key does."""
    server, number = _server(visit), visit.number("id")
    held = credentials.get(visit.instance, visit.actor, server.id, number)
    done = rehearsed(visit, partial(_renew, visit))
    title, words = (
        f"Another end for {held.label}?",
        f"It opens {held.username} on {server.name}, which ends it by itself.",
    )
    return ends.asked(visit, title, held.expires_at, [words], f"/hosts/{server.id}/keys/{number}", done)


def _renew(visit: Visit, instance: Instance) -> Credential:
    visit = replace(visit, instance=instance)
    server, number = visit.number("server"), visit.number("id")

    def seen(instance: Instance) -> str:
        return ends.seen(credentials.get(instance, visit.actor, server, number).expires_at)

    def set_end(instance: Instance) -> Credential:
        credentials.get(instance, visit.actor, server, number)
        return renewals.credential(instance, visit.actor, number, duration=ends.chosen(visit))

    return unless_changed(visit, "credentials:write", seen, set_end)


def renew(visit: Visit) -> Response:
    """Give such a key another end."""
    server, made = visit.number("server"), _renew(visit, visit.instance)
    assert made.expires_at is not None
    return visit.go(f"/hosts/{server}", f"The key {made.label} ends {templates.exact(made.expires_at)}.")


def removing(visit: Visit) -> Asked:
    """What taking such a key away does."""
    server, number = _server(visit), visit.number("id")
    credential = credentials.get(visit.instance, visit.actor, server.id, number)
    opened = f"{credential.username} on {server.name}"
    words = f"It no longer opens {opened} once the host has heard of it; sessions that it opened end."
    done = rehearsed(visit, lambda instance: credentials.delete(instance, visit.actor, server.id, number))
    title, button = f"Remove {credential.label} from {server.name}?", f"Remove this key from {server.name}"
    return Asked(title, [words], button, f"/hosts/{server.id}/keys/{number}", done)


def remove(visit: Visit) -> Response:
    """Take such a key away."""
    server = visit.number("server")
    gone = credentials.delete(visit.instance, visit.actor, server, visit.number("id"))
    still = " Something else still lets it in." if gone.still_opened_by else ""
    return visit.go(f"/hosts/{server}", f"The key {gone.credential.label} is taken away; the host is told.{still}")


def changing(visit: Visit) -> Response:
    """The form for a host's name, address and tags."""
    server = _server(visit)
    sent = visit.form.text if visit.refusal else None
    held = {"name": server.name, "address": server.address, "tags": " ".join(server.tags)}
    given = {name: sent(name, value) if sent else value for name, value in held.items()}
    return visit.show("host_change.html", server=server, given=given, seen=_seen_place(server))


def _seen_place(server: Server) -> str:
    return f"{server.name} {server.address} {' '.join(server.tags)}"


def changing_place(visit: Visit) -> Asked:
    """What another name, address or other tags of a host do."""
    server = _server(visit)
    done = rehearsed(visit, partial(_change_place, visit))
    form = visit.form
    tags = " ".join(dict.fromkeys(form.text("tags").replace(",", " ").split())) or "none"
    rows = (
        ("Its name", server.name, form.text("name").strip()),
        ("Where people log in", server.address, form.text("address").strip()),
        ("Its tags", " ".join(server.tags) or "none", tags),
    )
    words = [f"{what}: {now}, until now {before}." for what, before, now in rows if before != now]
    if tags != rows[2][1]:
        words.append("Grants to a tag open the hosts that have it: below is who gains and who loses by that.")
    back = f"/hosts/{server.id}/change"
    return Asked(f"Change {server.name}?", words or ["Nothing changes."], "Change it", back, done, takes=False)


def _change_place(visit: Visit, instance: Instance) -> Server:
    visit = replace(visit, instance=instance)
    number, form = visit.number("server"), visit.form

    def seen(instance: Instance) -> str:
        return _seen_place(servers.get(instance, visit.actor, number))

    def run(instance: Instance) -> Server:
        return server_changes.change(
            instance,
            visit.actor,
            number,
            name=validation.text(form.text("name").strip(), field="name"),
            address=form.text("address").strip(),
            tags=form.text("tags").replace(",", " ").split(),
        )

    return unless_changed(visit, "servers:write", seen, run)


def change_place(visit: Visit) -> Response:
    """Change a host's name, address or tags; its id stays."""
    made = _change_place(visit, visit.instance)
    return visit.go(f"/hosts/{made.id}", f"{made.name} is at {made.address} from now on.")


PAGES = (
    page("/hosts/{server}/keys", adding, "credentials:write"),
    change("/hosts/{server}/keys", add, "credentials:write", again=adding, undo="/hosts/{server}/keys/{id}/remove"),
    page("/hosts/{server}/keys/{id}", key, "credentials:read"),
    change("/hosts/{server}/keys/{id}/renew", renew, "credentials:write", again=key, asks=renewing),
    change(
        "/hosts/{server}/keys/{id}/restrict",
        restrict,
        "credentials:write",
        again=key,
        preview=FIRST_PRESS,
    ),
    change("/hosts/{server}/keys/{id}/remove", remove, "credentials:write", asks=removing),
    page("/hosts/{server}/change", changing, "servers:write"),
    change("/hosts/{server}/change", change_place, "servers:write", again=changing, asks=changing_place),
)
