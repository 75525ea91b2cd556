"""Hosts: the table, one host with all that opens it, and what is decided about it; must hold no rule of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.responses import Response

from keyrack.core import lifetimes
from keyrack.core.audit import events
from keyrack.core.hosts import (
    facts,
    host_keys,
    modes,
    report_events,
    server_list,
    servers,
    sessions,
    sshd_settings,
    status,
    system_users,
    troubles,
    undecided_keys,
    unmanaged_keys,
)
from keyrack.core.hosts.status import HostStatus
from keyrack.core.instance import Instance
from keyrack.core.keys import who_can
from keyrack.errors import Kind, Refusal, missing
from keyrack.model import ENFORCE, OBSERVE, Event, EventFilter, Server, Session, SystemUser, UnmanagedKey, span_of
from keyrack.model import Page as Piece
from keyrack.protocol.document_words import DROP_ALL, DROP_TEMPORARY, KEEP_ALL
from keyrack.protocol.report import EVERYBODY, KEY
from keyrack.web import bodies
from keyrack.web.console.visits import Asked, Visit, change, cursor_of, page, paged, rehearsed, unless_changed

PER_PAGE = 100
MAX = 200
REMOVED = "removed"
"""In the address of a host's page: the unmanaged key whose removal was asked for last."""
SPANS = (
    ("0", "never"),
    ("300", "after 5 minutes"),
    ("3600", "after an hour"),
    ("86400", "after a day"),
    ("604800", "after a week"),
)
STATES = (
    ("", "All"),
    (server_list.SILENT, "Silent"),
    (server_list.BEHIND, "Behind"),
    (server_list.NEW, "Not enrolled"),
    (server_list.HOST_KEY, "Host key not confirmed"),
    (server_list.PROBLEMS, "Something wrong"),
)
THENS = (
    (KEEP_ALL, "keys stay as they are"),
    (DROP_TEMPORARY, "temporary keys no longer open anything"),
    (DROP_ALL, "none of Keyrack's keys opens anything"),
)


@dataclass(frozen=True, slots=True)
class HostRow:
    """A host in the table. unmanaged: keys that wait for a decision; sessions: logins that are open;
    unconfirmed: it shows a host key that nobody confirmed.
    """

    server: Server
    status: HostStatus
    unmanaged: int
    sessions: int
    unconfirmed: bool

    @property
    def mark(self) -> str:
        """The mark of its state, as mark_of gives it."""
        return mark_of(self.status)


def mark_of(held: HostStatus) -> str:
    """The mark of a host's state: in force, on its way, or needs somebody."""
    if held.needs_somebody:
        return "attention"
    return "active" if held.is_as_decided else "pending"


def hosts(visit: Visit) -> Response:
    """All hosts; search: part of name or address."""
    search, state = visit.query.get("q", "").strip(), visit.query.get("state", "")
    piece = server_list.find(
        visit.instance, visit.actor, search=search, state=state, cursor=cursor_of(visit), limit=PER_PAGE
    )
    waiting: Mapping[int, int] = {}
    if visit.may("credentials:read"):
        waiting = undecided_keys.counts(visit.instance, visit.actor)
    inside = sessions.counts(visit.instance, visit.actor, piece.items) if visit.may("sessions:read") else {}
    new = troubles.unconfirmed_host_keys(visit.instance, visit.actor, piece.items)
    rows = [
        HostRow(one, status.of(visit.instance, one), waiting.get(one.id, 0), inside.get(one.id, 0), one.id in new)
        for one in piece.items
    ]
    return visit.show(
        "hosts.html",
        rows=rows,
        search=search,
        state=state,
        states=STATES,
        adding="add" in visit.query or visit.refusal is not None,
        **paged(visit, piece),
    )


def add(visit: Visit) -> Response:
    """Create a host that waits for its agent."""
    made = servers.create(
        visit.instance,
        visit.actor,
        name=visit.form.text("name").strip(),
        address=visit.form.text("address").strip() or visit.form.text("name").strip(),
        tags=visit.form.text("tags").replace(",", " ").split(),
        mode=OBSERVE,
    )
    return invite(visit, made.id)


def invite(visit: Visit, server_id: int = 0) -> Response:
    """Show the line that enrols a host, this once, and wait for the host."""
    number = server_id or visit.number("server")
    line = servers.installation_line(visit.instance, visit.actor, number)
    return visit.show("enrol.html", server=servers.get(visit.instance, visit.actor, number), line=line, status=200)


def host(visit: Visit) -> Response:
    """One host: who gets in and why, unmanaged keys, who is logged in, settings, what happened."""
    server = servers.get(visit.instance, visit.actor, visit.number("server"))
    held = status.of(visit.instance, server)
    part = visit.target if visit.is_part else ""
    given: dict[str, Any] = {"server": server, "held": held, "mark": mark_of(held)}
    if part == "state":
        return visit.show("_host_state.html", **given, **_host_keys(visit, server))
    if part == "arrival":
        return visit.show("_arrival.html", **given)
    if part == "sessions":
        return visit.show("_host_sessions.html", **given, sessions=_sessions(visit, server))
    if part == "unmanaged-keys":
        return visit.show("_host_unmanaged.html", **given, **_unmanaged(visit, server))
    ways, more, unknown = _ways(visit, server)
    settings = sshd_settings.get(visit.instance, visit.actor, server.id) if visit.may("sshconfig:read") else None
    changed = visit.refusal is not None and visit.refusal.kind is Kind.CHANGED
    return visit.show(
        "host.html",
        **given,
        **_host_keys(visit, server),
        ways=ways,
        more=more,
        unknown=unknown,
        **_unmanaged(visit, server),
        accounts=_accounts(visit, server),
        removed=_removed(visit, server),
        sessions=_sessions(visit, server),
        settings=settings,
        sshd_keywords=sshd_settings.KEYWORDS.items(),
        seen_offline=_seen_offline(server),
        spans=_spans(server),
        thens=THENS,
        seen_settings=_seen_settings(settings) if settings else "",
        wanted=[name for name in sshd_settings.KEYWORDS if visit.form.flag(name)] if changed else None,
        happened=_happened(visit, server),
    )


def _host_keys(visit: Visit, server: Server) -> dict[str, Any]:
    """The host keys that a host shows and nobody confirmed, and those that people trust there."""
    known = host_keys.find(visit.instance, visit.actor, str(server.id))
    unconfirmed, trusted = troubles.unconfirmed_among(known), [one for one in known if one.confirmed]
    return {"unconfirmed": unconfirmed, "wrong": troubles.of(server, known), "trusted": trusted}


def confirming_host_keys(visit: Visit) -> Asked:
    """What it means to trust what a host shows now."""
    server = servers.get(visit.instance, visit.actor, visit.number("server"))
    held = _host_keys(visit, server)
    if not held["unconfirmed"]:
        raise missing("host key that nobody confirmed")
    gone = [one.fingerprint for one in held["trusted"] if not one.shown]
    new = ", ".join(one.fingerprint for one in held["unconfirmed"])
    words = [
        f"Whoever logs in through keyrack ssh-config trusts {new} as {server.name} from then on.",
        *([f"What it showed before is no longer trusted: {', '.join(gone)}."] if gone else []),
        "If nobody installed it anew or gave it new keys, somebody may stand between you and the host: do not confirm, "
        "and look at the host's own screen first.",
    ]
    return Asked(f"Is this the host key of {server.name}?", words, "Confirm the host key", _at(server))


def confirm_host_keys(visit: Visit) -> Response:
    """Have people trust what a host shows, if that is what the form showed."""
    number, seen = visit.number("server"), visit.form.texts("fingerprint")
    host_keys.confirm(visit.instance, visit.actor, str(number), fingerprints=seen)
    return visit.go(f"/hosts/{number}", "People may trust the host key from now on; keyrack ssh-config has it.")


def _ways(visit: Visit, server: Server) -> tuple[tuple[who_can.Way, ...], bool, str]:
    """The first ways in, whether there are more, and why nothing can be said of them."""
    if not visit.may("access:read"):
        return (), False, ""
    try:
        ways = who_can.find(visit.instance, visit.actor, server=str(server.id), limit=MAX)
    except Refusal as refusal:
        return (), False, refusal.message
    return ways.items, ways.next is not None, ""


def _unmanaged(visit: Visit, server: Server) -> dict[str, Any]:
    """The unmanaged keys of a host, None for who may not see them, and whether it has reported any list yet."""
    looked = report_events.KEYS_DIGEST in server.facts
    if not visit.may("credentials:read"):
        return {"unmanaged": None, "looked": looked}
    return {"unmanaged": unmanaged_keys.find(visit.instance, visit.actor, server.id, limit=MAX), "looked": looked}


def _accounts(visit: Visit, server: Server) -> tuple[str, ...]:
    """The accounts of a host that grants and keys may name."""
    if not visit.may("systemusers:read"):
        return ()
    return tuple(one.username for one in system_users.find(visit.instance, visit.actor, server.id, limit=MAX).items)


def _add_account(visit: Visit, instance: Instance) -> SystemUser:
    name, existing = visit.form.text("username").strip(), visit.form.flag("existing")
    return system_users.create(instance, visit.actor, visit.number("server"), username=name, existing=existing)


def adding_account(visit: Visit) -> Asked:
    """What adding an account does: grants that name it open it at once."""
    server = servers.get(visit.instance, visit.actor, visit.number("server"))
    name = visit.form.text("username").strip()
    done = rehearsed(visit, partial(_add_account, visit))
    made = f"{server.name} makes the account {name}, unless it has one of that name."
    words = [
        f"{server.name} has {name} already, and is not asked to make it." if visit.form.flag("existing") else made,
        "Grants and keys may name it from then on. It stays on the host when it is taken off this list.",
    ]
    return Asked(f"Add {name} to {server.name}?", words, "Add account", _at(server), done, takes=False)


def add_account(visit: Visit) -> Response:
    """Add an account to a host, which makes it unless it is there already."""
    number, existing = visit.number("server"), visit.form.flag("existing")
    made = _add_account(visit, visit.instance)
    words = "may be named by grants and keys now" if existing else "is made by the host as soon as it has heard of it"
    return visit.go(f"/hosts/{number}", f"The account {made.username} {words}.")


def _sessions(visit: Visit, server: Server) -> Piece[Session] | None:
    if not visit.may("sessions:read"):
        return None
    return sessions.find(visit.instance, visit.actor, server.id, limit=MAX)


def _happened(visit: Visit, server: Server) -> tuple[Event, ...]:
    if not visit.may("events:read"):
        return ()
    return events.find(visit.instance, visit.actor, EventFilter(server_id=server.id), limit=15, cursor="").items


def manage(visit: Visit) -> Response:
    """Take over an unmanaged key as one of Keyrack's."""
    server, key_id = visit.number("server"), visit.number("id")
    made = unmanaged_keys.accept(
        visit.instance, visit.actor, server, key_id, username=visit.form.text("username") or None, gone=True
    )
    return visit.go(f"/hosts/{server}", f"The key {made.label} is managed by Keyrack now.")


def ignore(visit: Visit) -> Response:
    """Leave an unmanaged key where it is, and stop listing it as undecided."""
    server = visit.number("server")
    key = unmanaged_keys.ignore(visit.instance, visit.actor, server, visit.number("id"))
    return visit.go(
        f"/hosts/{server}", f"The key {key.comment or key.fingerprint} stays, and needs no decision any more."
    )


def _at(server: Server) -> str:
    return f"/hosts/{server.id}"


def remove(visit: Visit) -> Response:
    """Tell the host to take an unmanaged key out of its file, and offer to undo that."""
    server = visit.number("server")
    key = unmanaged_keys.remove(visit.instance, visit.actor, server, visit.number("id"))
    name = key.comment or key.fingerprint
    return visit.go(f"/hosts/{server}?{REMOVED}={key.id}", f"The host is asked to take {name} out of {key.path}.")


def _removed(visit: Visit, server: Server) -> UnmanagedKey | None:
    """The key that was removed by the press before, where it can be let in again."""
    number = bodies.identifier(visit.query.get(REMOVED, ""))
    if not number or not visit.may("credentials:write"):
        return None
    try:
        unmanaged_key = unmanaged_keys.get(visit.instance, visit.actor, server.id, number)
    except Refusal:
        return None
    back = unmanaged_key.kind == KEY and unmanaged_key.public_key and unmanaged_key.username != EVERYBODY
    return unmanaged_key if back and unmanaged_key.state in (unmanaged_keys.REMOVING, unmanaged_keys.GONE) else None


def ending_session(visit: Visit) -> Asked:
    """What ending a login does."""
    server = servers.get(visit.instance, visit.actor, visit.number("server"))
    session = sessions.get(visit.instance, visit.actor, server.id, visit.number("id"))
    opened = f"; the key {session.label} opened it" if session.label else ""
    words = [
        f"The login of {session.username} on {server.name} from {session.address} ends at once, with all that runs in "
        f"it{opened}.",
        "What let them in still does: to keep somebody out, revoke the key or take the grant back first.",
    ]
    return Asked(f"End the login of {session.username}?", words, f"End this login on {server.name}", _at(server))


def end_session(visit: Visit) -> Response:
    """End a login."""
    server = visit.number("server")
    ended = sessions.end(visit.instance, visit.actor, server, visit.number("id"))
    return visit.go(f"/hosts/{server}", f"The login of {ended.username} is being ended.")


def enforcing(visit: Visit) -> Response:
    """What enforcing would do on a host: who stays, and whose way in ends."""
    server = servers.get(visit.instance, visit.actor, visit.number("server"))
    ways, cut, unknown = _ways(visit, server)
    keys = unmanaged_keys.find(visit.instance, visit.actor, server.id, limit=MAX)
    managed = [(way.reason.username, way.reason.fingerprint) for way in ways]
    loses = unmanaged_keys.losing(keys.items, managed)
    gained = unmanaged_keys.gaining(keys.items, managed)
    gains = [way for way in ways if (way.reason.username, way.reason.fingerprint) in gained]
    return visit.show(
        "enforce.html",
        stops=False,
        server=server,
        held=status.of(visit.instance, server),
        gains=gains,
        stays=[way for way in ways if way not in gains],
        unknown=unknown,
        loses=loses,
        more=cut or keys.total > MAX,
        plan=facts.plan_of(server),
    )


def stopping(visit: Visit) -> Response:
    """What going back to observing does."""
    server = servers.get(visit.instance, visit.actor, visit.number("server"))
    return visit.show("enforce.html", stops=True, server=server)


def set_mode(visit: Visit) -> Response:
    """Tell a host to enforce, or to observe."""
    number, mode = visit.number("server"), visit.form.text("mode")
    server = modes.set_mode(visit.instance, visit.actor, number, mode)
    words = "tries enforcing for a minute, and undoes it by itself if nobody could log in"
    return visit.go(f"/hosts/{number}", f"{server.name} {words if mode == ENFORCE else 'goes back to observing'}.")


def _seen_settings(settings: sshd_settings.SshSettings) -> str:
    """Which of the settings are wanted, as the form has seen them."""
    return " ".join(name for name in sshd_settings.KEYWORDS if getattr(settings, name))


def set_sshd(visit: Visit) -> Response:
    """Ask settings of the host's sshd."""
    number = visit.number("server")
    wishes = {name: visit.form.flag(name) for name in sshd_settings.KEYWORDS}

    def seen(instance: Instance) -> str:
        return _seen_settings(sshd_settings.get(instance, visit.actor, number))

    def change(instance: Instance) -> None:
        sshd_settings.change(instance, visit.actor, number, wishes)

    unless_changed(visit, "sshconfig:write", seen, change)
    return visit.go(f"/hosts/{number}", "The host is asked for these SSH settings.")


def offline_words(after_seconds: int, then: str) -> str:
    """What hosts do without Keyrack, in words."""
    if not after_seconds:
        return "keys stay as they are, however long it lasts"
    return f"{_after(after_seconds)} {dict(THENS).get(then, then)}"


def _after(seconds: int) -> str:
    return dict(SPANS).get(str(seconds), f"after {lifetimes.written(span_of(seconds))}")


def _spans(server: Server) -> tuple[tuple[str, str], ...]:
    """How long a host may be without Keyrack, and what is set for this one."""
    held = str(server.offline_after_seconds)
    if held in dict(SPANS):
        return SPANS
    return (*SPANS, (held, _after(server.offline_after_seconds)))


def _seen_offline(server: Server) -> str:
    return f"{server.offline_after_seconds} {server.offline_then}"


def set_offline(visit: Visit) -> Response:
    """Say what a host does when it has not reached Keyrack for a while."""
    number = visit.number("server")
    after, then = bodies.identifier(visit.form.text("after")), visit.form.text("then") or KEEP_ALL

    def seen(instance: Instance) -> str:
        return _seen_offline(servers.get(instance, visit.actor, number))

    def change(instance: Instance) -> None:
        modes.set_offline_policy(instance, visit.actor, after_seconds=after, then=then, server_id=number)

    unless_changed(visit, "servers:write", seen, change)
    return visit.go(f"/hosts/{number}", "The host is told what to do when it does not reach Keyrack.")


def deleting(visit: Visit) -> Response:
    """What removing a host does."""
    server = servers.get(visit.instance, visit.actor, visit.number("server"))
    ways, more, unknown = _ways(visit, server)
    return visit.show("delete_host.html", server=server, ways=ways, more=more, unknown=unknown)


def delete(visit: Visit) -> Response:
    """Remove a host; its agent is told to take Keyrack's keys away."""
    gone = servers.delete(visit.instance, visit.actor, visit.number("server"))
    return visit.go("/hosts", f"{gone.name} is removed; its host is told to take Keyrack's keys away.")


_REMOVE, _MANAGE = "/hosts/{server}/remove", "/hosts/{server}/unmanaged/{id}/manage"
_TAKES_KEY = "/hosts/{server}/keys/{id}/remove"
PAGES = (
    page("/hosts", hosts, "servers:read"),
    change("/hosts", add, "servers:write", again=hosts, undo=_REMOVE),
    page("/hosts/{server}", host, "servers:read"),
    change("/hosts/{server}/invite", invite, "servers:write", undo=_REMOVE),
    change("/hosts/{server}/accounts", add_account, "systemusers:write", again=host, asks=adding_account),
    change(_MANAGE, manage, "credentials:write", again=host, undo=_TAKES_KEY),
    change("/hosts/{server}/unmanaged/{id}/ignore", ignore, "credentials:write", again=host, undo=_MANAGE),
    change("/hosts/{server}/unmanaged/{id}/remove", remove, "credentials:write", again=host, undo=_MANAGE),
    change("/hosts/{server}/sessions/{id}/end", end_session, "sessions:write", asks=ending_session),
    page("/hosts/{server}/enforce", enforcing, "servers:write"),
    page("/hosts/{server}/observe", stopping, "servers:write"),
    change(
        "/hosts/{server}/mode",
        set_mode,
        "servers:write",
        again=enforcing,
        dangerous=True,
        preview="/hosts/{server}/enforce",
    ),
    change("/hosts/{server}/host-keys", confirm_host_keys, "servers:write", again=host, asks=confirming_host_keys),
    change("/hosts/{server}/sshd", set_sshd, "sshconfig:write", again=host, undo="/hosts/{server}/sshd"),
    change(
        "/hosts/{server}/offline",
        set_offline,
        "servers:write",
        again=host,
        dangerous=True,
        undo="/hosts/{server}/offline",
    ),
    page(_REMOVE, deleting, "servers:write"),
    change(_REMOVE, delete, "servers:write", dangerous=True, preview=_REMOVE),
)
