"""Keys on hosts that Keyrack did not put there: store reports of them, accept, ignore, remove; must believe no host
about another one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from keyrack.core import cursors, lookups, quotas, validation
from keyrack.core.hosts import report_events
from keyrack.core.hosts.facts import WRITERS
from keyrack.core.hosts.undecided_keys import NEW
from keyrack.core.instance import Instance
from keyrack.core.keys import credentials, event_terms, revocation
from keyrack.core.together import within
from keyrack.core.work import Attempt, Work
from keyrack.errors import Kind, Refusal, invalid, missing
from keyrack.model import Actor, Credential, Page, Server, UnmanagedKey
from keyrack.protocol.report import AUTHORITY, EVERYBODY, KEY, UNREADABLE, ReportedKey, ReportError
from keyrack.ssh import foreign_options, options
from keyrack.ssh.fingerprint import is_fingerprint, of_public_key
from keyrack.ssh.names import hidden_character
from keyrack.store.chunks import chunks
from keyrack.store.hosts import servers, system_users, unmanaged_keys

ACCEPTED = "accepted"
"""It became a credential."""
IGNORED = "ignored"
REMOVING = "removing"
"""The host was asked to remove it, and has not yet said that it did."""
GONE = "gone"
"""The host no longer finds it."""
OPEN = (NEW, REMOVING)
STATES = (NEW, ACCEPTED, IGNORED, REMOVING, GONE)

KEYS = (KEY, AUTHORITY)
MAX_PER_REPORT = 2000
MAX_EVENTS = 20
BATCH_SIZE = 250
"""So many changes are in one transaction: all other writes wait for it."""
MAX_PER_SERVER = 5000
MAX_GONE = 2000
REMEMBERED = timedelta(days=90)
MAX_CUT = 5000
"""A list that comes in several reports names in each of them the files of all others: at most as many as keys."""
FULL_LIST = 1500
"""A report of so many keys, by an agent that does not say what it left out, counts as cut."""
_LENGTHS = {"username": 64, "path": 1024, "type": 64, "key": 16384, "options": 2000, "comment": 200, "problem": 300}


def find(
    instance: Instance,
    actor: Actor,
    server_id: int,
    *,
    states: Collection[str] = (NEW, IGNORED, REMOVING, ACCEPTED),
    offset: int = 0,
    limit: int = 15,
    cursor: str | None = None,
) -> Page[UnmanagedKey]:
    """A page of the keys found on a host, with the user whom each belongs to.

    states: of STATES; cursor: of the page before, "" for the first one; takes the place of offset. Raises Refusal
    MISSING for the server, or INVALID for a state or a malformed cursor.
    """
    attempt = Attempt(
        instance,
        actor,
        "credentials:read",
        "list keys found on a host",
        target_kind="unmanaged key",
        server_id=server_id,
    )
    with attempt:
        if not set(states) <= set(STATES):
            raise invalid("state", f"state takes one or several, with commas, of: {', '.join(STATES)}.")
        after = cursors.place(cursor, str, str, int, int)

        def question(connection: Connection) -> Page[UnmanagedKey]:
            lookups.require_server(connection, actor, server_id)
            return unmanaged_keys.find(
                connection, actor.workspace_id, server_id, states=tuple(states), offset=offset, limit=limit, after=after
            )

        return attempt.read(question)


def get(instance: Instance, actor: Actor, server_id: int, key_id: int) -> UnmanagedKey:
    """A key found on a host, also one that is no longer there. Raises Refusal MISSING."""
    attempt = Attempt(
        instance,
        actor,
        "credentials:read",
        "see a key found on a host",
        target_kind="unmanaged key",
        target_id=key_id,
        server_id=server_id,
    )
    with attempt:
        unmanaged_key = attempt.read(
            lambda connection: (
                unmanaged_keys.get(connection, actor.workspace_id, server_id, key_id)
                if servers.own_id(connection, actor.workspace_id, server_id)
                else None
            )
        )
        if unmanaged_key is None:
            raise missing("unmanaged key")
        return unmanaged_key


def losing(keys: Iterable[UnmanagedKey], managed: Iterable[tuple[str, str]]) -> list[UnmanagedKey]:
    """Which of these keys let somebody in now and would not once the host enforces.

    managed: pairs of account and fingerprint that Keyrack lets in.
    """
    managed_pairs = set(managed)
    return [
        key
        for key in keys
        if key.in_force and key.state != GONE and (key.username, key.fingerprint) not in managed_pairs
    ]


def gaining(keys: Iterable[UnmanagedKey], managed: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Which of the pairs of account and fingerprint that Keyrack lets in no key on the host opens now: an observing
    host obeys only its own files.
    """
    now = {(one.username, one.fingerprint) for one in keys if one.in_force and one.state != GONE}
    return {(account, key) for account, key in managed if (account, key) not in now and ("*", key) not in now}


def accept(
    instance: Instance,
    actor: Actor,
    server_id: int,
    key_id: int,
    *,
    label: object = None,
    username: object = None,
    expires_at: object = None,
    duration: object = None,
    gone: bool = False,
) -> Credential:
    """Make an unmanaged key a credential of its server, with the restrictions and the end that its line has.

    label: None for the key's comment or fingerprint; username: needed where the key counts for every account;
    expires_at or duration: an end in place of the line's; gone: also a key that is no longer there. Raises Refusal
    MISSING, INVALID for a key or options that cannot be kept, TAKEN for the label, LIMIT.
    """
    attempt = _attempt(instance, actor, "accept a key found on a host", server_id, key_id)
    with attempt:

        def change(work: Work) -> Credential:
            server, unmanaged = _own(work.connection, actor, server_id, key_id, gone=gone)
            if unmanaged.kind != KEY or not unmanaged.public_key:
                raise invalid("key", "Only a key can be accepted; this lets in by other means.", "not-a-key")
            user = validation.account(unmanaged.username if username is None else username)
            with_comment = f"{unmanaged.public_key} {unmanaged.comment}".strip()
            key = validation.public_key(within(work), actor.workspace_id, with_comment)
            limits, end = _restrictions_and_end(unmanaged, key.type)
            name = validation.text(label or unmanaged.comment or unmanaged.fingerprint, field="label")
            if system_users.by_name(work.connection, server.id, user) is None:
                quotas.refuse_more(work, "system user", server.id)
                system_users.add(work.connection, server.id, user, deletable=True, managed=False, at=work.now)
            credential = credentials.put(
                work,
                server,
                user,
                name,
                key,
                end=validation.end(work.now, expires_at, duration=duration) or validation.end(work.now, end),
                limits=limits,
            )
            if unmanaged.state != GONE:
                unmanaged_keys.change(work.connection, [unmanaged.id], {"state": ACCEPTED})
            terms = event_terms.sentence_end(expires_at=credential.expires_at, restrictions=limits)
            work.record(
                f"Accepted the key {unmanaged.fingerprint} found in {unmanaged.path} as SSH key {name} "
                f"for {user} on {server.name}{terms}",
                target_id=unmanaged.id,
                details={
                    "credential": credential.id,
                    "fingerprint": unmanaged.fingerprint,
                    **event_terms.details(limits),
                },
            )
            return credential

        return attempt.write(change)


def may_decide(instance: Instance, actor: Actor, server_id: int, key_id: int) -> None:
    """Raises Refusal MISSING or FORBIDDEN where the actor may not accept, ignore or remove this key, as these do."""
    with _attempt(instance, actor, "decide on a key found on a host", server_id, key_id) as attempt:
        attempt.read(lambda connection: _own(connection, actor, server_id, key_id))


def ignore(instance: Instance, actor: Actor, server_id: int, key_id: int) -> UnmanagedKey:
    """Leave an unmanaged key where it is, and count it no longer. Raises Refusal MISSING."""
    return _decide(instance, actor, server_id, key_id, IGNORED, "ignore a key found on a host", "Ignored")


def remove(instance: Instance, actor: Actor, server_id: int, key_id: int) -> UnmanagedKey:
    """Ask the host to take an unmanaged key out of its file. Raises Refusal MISSING, or INVALID for what is no key."""
    return _decide(instance, actor, server_id, key_id, REMOVING, "remove a key found on a host", "Asked to remove")


@dataclass(slots=True)
class _Unseen:
    """Where a report proves nothing, as the host did not or could not look there, or had no room to report it."""

    everything: bool = False
    usernames: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    places: set[tuple[str, str]] = field(default_factory=set)

    def add(self, username: object, path: object) -> None:
        """Add an account and a file; "" stands for all of them."""
        if not isinstance(username, str) or not isinstance(path, str) or not (username or path):
            self.everything = True
        elif not path:
            self.usernames.add(username)
        elif not username:
            self.paths.add(path)
        else:
            self.places.add((username, path))

    def covers(self, username: str, path: str) -> bool:
        """Whether a key may be there although the report does not name it."""
        if self.everything or username in self.usernames or path in self.paths:
            return True
        return (username, path) in self.places


@dataclass(frozen=True, slots=True)
class ReportedKeys:
    """The keys that a host reports, checked: columns by account, file and fingerprint."""

    keys: Mapping[tuple[str, str, str], Mapping[str, Any]]
    unseen: _Unseen


def read(body: object, cut: object = None) -> ReportedKeys | None:
    """Check the keys that a host reports, before the transaction, as all writes wait for that; None for no list.

    cut: list of {"username", "path"} where the host's search ended early or failed, "" for all; None: the agent does
    not say.
    """
    if not isinstance(body, list):
        return None
    unseen = _unseen(body, cut)
    keys: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for entry in body[:MAX_PER_REPORT]:
        values = _values(entry)
        if values is None:
            # Something is there that was not understood.
            unseen.add(*((entry.get("username"), entry.get("path")) if isinstance(entry, Mapping) else ("", "")))
            continue
        keys.setdefault((values["username"], values["path"], values["fingerprint"]), values)
    return ReportedKeys(keys, unseen)


def _found_again(server: Server, values: Mapping[str, Any]) -> str:
    """The event that a removed key is there again, and which programs may have written it."""
    writers = ", ".join(server.facts.get(WRITERS) or ())
    who = f"; this host has what writes keys again and again: {writers}" if writers else ""
    return f"The key {values['fingerprint']} is in {values['path']} on {server.name} again{who}"


@dataclass(frozen=True, slots=True)
class KeysPiece:
    """Some of what a list of keys changes, few enough that no other write waits long; each is true without the others.

    gone: ids; changed, returned (gone before): columns with `row_id`; added: columns; events: their words.
    """

    gone: Sequence[int] = ()
    changed: Sequence[Mapping[str, Any]] = ()
    returned: Sequence[Mapping[str, Any]] = ()
    added: Sequence[Mapping[str, Any]] = ()
    events: Sequence[str] = ()


def plan(instance: Instance, server: Server, reported: ReportedKeys) -> list[KeysPiece]:
    """The changes that bring the stored keys to what a host reports. A key not named there is gone, unless unseen."""
    known = instance.database.read(lambda connection: unmanaged_keys.known(connection, server.id))
    changes: list[tuple[str, Any]] = [
        ("gone", one.id)
        for place, one in known.items()
        if place not in reported.keys and one.state != GONE and not reported.unseen.covers(one.username, one.path)
    ]
    present = sum(one.state != GONE for one in known.values()) - len(changes)
    new: list[Mapping[str, Any]] = []
    added: list[Mapping[str, Any]] = []
    for place, values in reported.keys.items():
        before = known.get(place)
        if before is None:
            added.append(values)
            new.append(values)
        elif before.state == GONE:
            changes.append(("returned", {"row_id": before.id, **values}))
            changes.append(("events", _found_again(server, values)))
            new.append(values)
        elif any(getattr(before, name) != value for name, value in values.items()):
            changes.append(("changed", {"row_id": before.id, **values}))
    room = max(0, MAX_PER_SERVER - present)
    changes += [("added", values) for values in added[:room]]
    changes += [("events", words) for words in _words_of_new(server, new)]
    if len(added) > room:
        words = f"Host {server.name} has more than {MAX_PER_SERVER} keys that were put there by hand"
        changes.append(("events", f"{words}; {len(added) - room} of them are not listed here"))
    names = ("gone", "changed", "returned", "added", "events")
    return [
        KeysPiece(**{name: [change for kind, change in part if kind == name] for name in names})
        for part in chunks(changes, BATCH_SIZE)
    ]


def store(work: Work, server: Server, piece: KeysPiece) -> None:
    """Store a piece; nothing of it where the server was deleted meanwhile."""
    work.no_event("found keys are no change that anybody made; report_events records what is new")
    if servers.by_id(work.connection, server.id) is None:
        return
    removed = unmanaged_keys.in_state(work.connection, piece.gone, REMOVING)
    unmanaged_keys.change(work.connection, piece.gone, {"state": GONE, "seen_at": work.now})
    unmanaged_keys.change_each(work.connection, [{**values, "seen_at": work.now} for values in piece.changed])
    unmanaged_keys.change_each(
        work.connection, [{**values, "seen_at": work.now, "state": NEW} for values in piece.returned]
    )
    new = {"server_id": server.id, "state": NEW, "found_at": work.now, "seen_at": work.now}
    unmanaged_keys.add(work.connection, [{**values, **new} for values in piece.added])
    new_keys = [(values["fingerprint"], values["public_key"]) for values in (*piece.returned, *piece.added)]
    revocation.refuse_unmanaged(work, server.id, new_keys)
    obeyed = [f"The key {one.fingerprint} was taken out of {one.path} on {server.name}" for one in removed]
    report_events.record(work, server, *obeyed, *piece.events)


def forget(work: Work, server: Server) -> None:
    """Delete rows of keys that are gone: those older than REMEMBERED, and the oldest beyond MAX_GONE."""
    unmanaged_keys.forget(work.connection, server.id, GONE, work.now - REMEMBERED)
    unmanaged_keys.keep_newest(work.connection, server.id, GONE, MAX_GONE)


def _unseen(entries: list[Any], cut: object) -> _Unseen:
    unseen = _Unseen()
    if isinstance(cut, list):
        for entry in cut[:MAX_CUT]:
            unseen.add(*((entry.get("username"), entry.get("path")) if isinstance(entry, Mapping) else ("", "")))
        unseen.everything = unseen.everything or len(cut) > MAX_CUT
    else:
        unseen.everything = cut is not None or len(entries) >= FULL_LIST
    unseen.everything = unseen.everything or len(entries) > MAX_PER_REPORT
    for entry in entries:
        if isinstance(entry, Mapping) and entry.get("kind") == UNREADABLE and not entry.get("line"):
            unseen.add(entry.get("username"), entry.get("path"))
    return unseen


def _decide(
    instance: Instance, actor: Actor, server_id: int, key_id: int, state: str, aim: str, done: str
) -> UnmanagedKey:
    attempt = _attempt(instance, actor, aim, server_id, key_id)
    with attempt:

        def change(work: Work) -> UnmanagedKey:
            server, unmanaged_key = _own(work.connection, actor, server_id, key_id)
            if state == REMOVING:
                if unmanaged_key.kind not in KEYS:
                    raise invalid("key", "Only keys can be removed; change sshd's settings there.", "not-a-key")
                work.bump_revision(server.id)
            unmanaged_keys.change(work.connection, [unmanaged_key.id], {"state": state})
            work.record(
                f"{done} the key {unmanaged_key.fingerprint} found in {unmanaged_key.path} on {server.name}",
                target_id=unmanaged_key.id,
                level="warning",
                details={"username": unmanaged_key.username, "fingerprint": unmanaged_key.fingerprint},
            )
            return _own(work.connection, actor, server_id, key_id)[1]

        return attempt.write(change)


def _attempt(instance: Instance, actor: Actor, aim: str, server_id: int, key_id: int) -> Attempt:
    return Attempt(
        instance,
        actor,
        "credentials:write",
        aim,
        target_kind="unmanaged key",
        target_id=key_id,
        server_id=server_id,
    )


def _own(
    connection: Connection, actor: Actor, server_id: int, key_id: int, *, gone: bool = False
) -> tuple[Server, UnmanagedKey]:
    server = lookups.server(connection, actor, server_id)
    unmanaged_key = unmanaged_keys.get(connection, actor.workspace_id, server.id, key_id)
    if unmanaged_key is None or (unmanaged_key.state == GONE and not gone):
        raise missing("unmanaged key")
    return server, unmanaged_key


def _restrictions_and_end(unmanaged: UnmanagedKey, key_type: str) -> tuple[dict[str, Any], datetime | None]:
    try:
        read = foreign_options.read(unmanaged.options)
        # sshd ignores an option that the key cannot obey, but no document may have such a line.
        options.render(read.restrictions, key_type)
    except ValueError as error:
        raise Refusal(Kind.INVALID, "options-not-kept", str(error), field="options") from None
    return read.restrictions.to_json(), read.expires_at


def _values(entry: object) -> dict[str, Any] | None:
    """The columns of one reported key; None for what none of our agents would report."""
    try:
        key = ReportedKey.from_json(entry)
    except ReportError:
        return None
    # The number that stands for an unprintable character is longer than the character.
    key = key._replace(comment=key.comment[: _LENGTHS["comment"]], problem=key.problem[: _LENGTHS["problem"]])
    for name, longest in _LENGTHS.items():
        text = getattr(key, name)
        if len(text) > longest or hidden_character(text) is not None:
            return None
    if key.fingerprint != "" and not is_fingerprint(key.fingerprint):
        return None
    # Computed, never taken from the report: owners and removals go by the fingerprint.
    fingerprint = of_public_key(key.key) if key.key else ""
    if fingerprint is None or (key.kind in KEYS and not fingerprint):
        return None
    if not key.username or not key.path.startswith("/") or not 0 <= key.line < 2**31:
        return None
    return {
        "username": key.username,
        "path": key.path,
        "kind": key.kind,
        "line": key.line,
        "fingerprint": fingerprint,
        "key_type": key.type,
        "public_key": key.key,
        "options": key.options,
        "comment": key.comment,
        "problem": key.problem,
        "in_force": key.in_force,
    }


def _words_of_new(server: Server, new: list[Mapping[str, Any]]) -> list[str]:
    """Events of new keys: first those that let somebody in, then root's; beyond MAX_EVENTS only their number."""
    new = sorted(new, key=lambda values: (not values["in_force"], values["username"] != "root"))
    phrases = []
    for values in new[:MAX_EVENTS]:
        whom = "every account" if values["username"] == EVERYBODY else values["username"]
        what = values["fingerprint"] or values["kind"]
        remark = "" if values["in_force"] else " (sshd does not take it there)"
        phrases.append(f"Found by hand on {server.name}: {what} for {whom} in {values['path']}{remark}")
    if len(new) > MAX_EVENTS:
        count = sum(values["in_force"] for values in new[MAX_EVENTS:])
        more = f"Found {len(new) - MAX_EVENTS} more keys by hand on {server.name}"
        phrases.append(f"{more}, {count} of which let somebody in")
    return phrases
