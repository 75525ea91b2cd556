"""The pages on which alarms are settled: one alarm, rows that others changed, a host that knows more than the database,
two machines with one identity, an account elsewhere; must hold no rule of its own.
"""

from __future__ import annotations

from urllib.parse import quote

from starlette.responses import Response

from keyrack.core.audit import standing
from keyrack.core.audit.standing import Alarm
from keyrack.core.hosts import copies, database_rollback, resync, servers, troubles
from keyrack.core.keys import damaged_rows, key_sources
from keyrack.errors import missing
from keyrack.web.console.visits import Asked, Visit, change, cursor_of, page, rehearsed

MAX = 200
"""How many alarms one page shows of each kind."""
KINDS = {
    "line": "a way in that the database has, held back",
    "revoked": "stays revoked there",
    "lost": "was there, and the database lost it",
    "account": "an account that is left as it is",
}


def place_of(alarm: Alarm) -> str:
    """The page on which an alarm is settled."""
    if alarm.user:
        return f"/people/{quote(alarm.user)}#elsewhere"
    if alarm.server_id and alarm.code == database_rollback.CODE:
        return f"/hosts/{alarm.server_id}/resync"
    if alarm.server_id and alarm.code in troubles.CODES:
        return f"/hosts/{alarm.server_id}#state"
    return "/alarms" if alarm.event_id is None else f"/alarms/{alarm.event_id}"


def alarms(visit: Visit) -> Response:
    """All alarms that stand, and those that were settled within a day."""
    shown = standing.find(visit.instance, visit.actor)
    return visit.show("alarms.html", alarms=shown, place_of=place_of, most=MAX)


def alarm(visit: Visit) -> Response:
    """One alarm: whether it stands, and what settles it."""
    number = visit.number("id")
    shown = standing.get(visit.instance, visit.actor, number)
    place, on = place_of(shown), shown.server_id
    there = on is not None and visit.may("servers:read") and servers.has(visit.instance, visit.actor, on)
    host = servers.get(visit.instance, visit.actor, on).name if on is not None and there else ""
    elsewhere = "" if place.startswith("/alarms/") else place
    return visit.show("alarm.html", alarm=shown, elsewhere=elsewhere, number=number, host=host)


def settling(visit: Visit) -> Asked:
    """What it means to settle an alarm."""
    number = visit.number("id")
    standing.may_settle(visit.instance, visit.actor, number)
    shown = standing.get(visit.instance, visit.actor, number)
    words = [
        f"{shown.words.rstrip('.')}.",
        "Everybody sees that you settled it; it stays in Activity. If it is raised again, it is an alarm again.",
    ]
    return Asked("Is this alarm settled?", words, "It is settled", f"/alarms/{number}", takes=False)


def settle(visit: Visit) -> Response:
    """Say that an alarm is settled."""
    standing.settle(visit.instance, visit.actor, visit.number("id"))
    return visit.go("/", "The alarm is settled.")


def damaged(visit: Visit) -> Response:
    """Rows that are not as Keyrack wrote them."""
    piece = damaged_rows.find(visit.instance, visit.actor, cursor=cursor_of(visit))
    here = "/damaged"
    onward = f"{here}?after={quote(piece.next)}" if piece.next else ""
    return visit.show(
        "damaged.html",
        rows=piece.items,
        owning=damaged_rows.OWNING,
        first=here if cursor_of(visit) else "",
        next=onward,
    )


def removing_damaged(visit: Visit) -> Asked:
    """What removing a damaged row does."""
    name = visit.form.text("row")
    damaged_rows.may_remove(visit.instance, visit.actor, name)
    words = [
        f"The row {name} is removed from the database. Its key, if it has one, is refused where it stood.",
        "What it says now was not entered through Keyrack. If somebody needs it, enter it again, as usual.",
    ]
    return Asked(f"Remove the damaged row {name}?", words, f"Remove {name}", "/damaged")


def remove_damaged(visit: Visit) -> Response:
    """Remove a damaged row."""
    gone = damaged_rows.remove(visit.instance, visit.actor, visit.form.text("row"))
    return visit.go("/damaged", f"The damaged row {gone.name} is removed.")


def difference(visit: Visit) -> Response:
    """What a host refused or had that the database does not say."""
    held = resync.difference(visit.instance, visit.actor, visit.number("server"), cursor=cursor_of(visit))
    here = f"/hosts/{held.server.id}/resync"
    return visit.show(
        "resync.html",
        held=held,
        server=held.server,
        kinds=KINDS,
        first=here if cursor_of(visit) else "",
        next=f"{here}?after={quote(held.next)}" if held.next else "",
    )


def deciding(visit: Visit) -> Asked:
    """What a decision about what is held back does."""
    server = servers.get(visit.instance, visit.actor, visit.number("server"))
    back, let_in = f"/hosts/{server.id}/resync", visit.form.texts("let_in")
    if visit.form.flag("accept_database"):
        words = [
            f"Nothing is held back on {server.name} any more: what the database says counts, also where the host "
            "refused it. Keys that were revoked after the backup was made open it again.",
        ]
        return Asked(f"Let {server.name} obey the database?", words, "Hold nothing back", back)
    kept = f"What {server.name} refused before the database went back stays refused there, for good."
    words = [kept, *([f"Let in again: {', '.join(let_in)}."] if let_in else [])]
    button = f"Let in {len(let_in)} and refuse the rest" if let_in else "Keep it refused"
    return Asked(f"What {server.name} refused stays refused?", words, button, back, takes=bool(let_in))


def decide(visit: Visit) -> Response:
    """Decide on what is held back on a host."""
    number, form = visit.number("server"), visit.form
    resync.decide(
        visit.instance,
        visit.actor,
        number,
        let_in=form.texts("let_in"),
        accept_database=form.flag("accept_database"),
    )
    return visit.go(f"/hosts/{number}", "It is decided, and the host is told.")


def going_on(visit: Visit) -> Asked:
    """What it means to go on with one of two machines."""
    server = servers.get(visit.instance, visit.actor, visit.number("server"))
    if server.copied_at is None:
        raise missing("copy of this host")
    words = [
        f"{server.name} goes on with the machine that asks next: it gets documents, and what it reports counts.",
        "If the other one is still there, that is noticed again, and neither gets anything.",
    ]
    return Asked(f"Is the copy of {server.name} gone?", words, "The copy is gone", f"/hosts/{server.id}", takes=False)


def go_on(visit: Visit) -> Response:
    """Go on with a host whose copy is gone."""
    server = copies.settle(visit.instance, visit.actor, visit.number("server"))
    return visit.go(f"/hosts/{server.id}", f"{server.name} goes on with the machine that asks next.")


def stopping_source(visit: Visit) -> Asked:
    """What it does to take no more keys from an account elsewhere."""
    name, kind = visit.path["name"], visit.form.text("kind")
    source = key_sources.get(visit.instance, visit.actor, name, kind)
    done = rehearsed(visit, lambda instance: key_sources.delete(instance, visit.actor, name, kind))
    words = [
        f"Keys that came from {source.account} at {source.url} are withdrawn from every host and repository, and no "
        "more of its keys are added.",
        f"Keys that {name} registered here stay.",
    ]
    title, back = f"Take no more keys from {source.account}?", f"/people/{quote(name)}"
    return Asked(title, words, "Take no more keys", back, done)


def stop_source(visit: Visit) -> Response:
    """Take no more keys from an account elsewhere."""
    name = visit.path["name"]
    gone = key_sources.delete(visit.instance, visit.actor, name, visit.form.text("kind"))
    return visit.go(
        f"/people/{quote(name)}",
        f"Keys of {gone.account} at {gone.url} are no longer taken; those that came from it are withdrawn.",
    )


PAGES = (
    page("/alarms", alarms, "events:read"),
    page("/alarms/{id}", alarm, "events:read"),
    change("/alarms/{id}/settle", settle, "servers:write", asks=settling),
    page("/damaged", damaged, "credentials:read"),
    change("/damaged/remove", remove_damaged, "credentials:write", asks=removing_damaged, dangerous=True),
    page("/hosts/{server}/resync", difference, "servers:read"),
    change("/hosts/{server}/resync", decide, "keys:revoke", asks=deciding, dangerous=True),
    change("/hosts/{server}/copy-gone", go_on, "servers:write", asks=going_on),
    change("/stop-source/{name:path}", stop_source, "people:write", asks=stopping_source),
)
