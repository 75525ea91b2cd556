"""Answers who can log in where and why, from the decision that host documents are made of; must decide nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Connection

from keyrack.core import cursors, validation
from keyrack.core.hosts import refused_logins
from keyrack.core.instance import Instance
from keyrack.core.keys import access
from keyrack.core.keys.access import Decision, Reason, Whose
from keyrack.core.lookups import ONESELF, is_oneself, server_named, user_named
from keyrack.core.work import Attempt
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, Page, Server, User
from keyrack.ssh.fingerprint import of_public_key
from keyrack.store.hosts import servers
from keyrack.store.keys import access as rows
from keyrack.store.keys import grants, key_owners, user_keys, uses
from keyrack.store.people import groups as group_rows
from keyrack.store.people import users as user_rows
from keyrack.store.per_server import batch

PER_PAGE = 50
MOST_NAMED = 10
_PLACE = (int, str, str, str, int)


@dataclass(frozen=True, slots=True)
class Way:
    """One way in: as a system user of a server, with a key, for a reason: a credential or a grant.

    user: whose key it is, None where no user registered it; group: through which the grant lets the user in; tag:
    the server's, for which the grant is; last_used_at: of the key on this server, as which system user ever.
    """

    server: Server
    reason: Reason
    user: str | None
    group: str | None
    last_used_at: datetime | None

    @property
    def kind(self) -> Literal["credential", "grant", "group"]:
        """What opens it: credential, grant (to a user) or group."""
        if self.reason.grant is None:
            return "credential"
        return "grant" if self.reason.grant.group_id is None else "group"

    @property
    def refused(self) -> str | None:
        """Why sshd refuses it all the same, by the host's word; empty where it does not, None where it has not said."""
        return refused_logins.of(self.server).why(self.reason.username, self.reason.fingerprint)


@dataclass(frozen=True, slots=True)
class Ways:
    """A page of ways in. next: the mark of the next page, None where there is none; unknown: the servers within this
    page of which nothing can be said, as their rows are not as Keyrack wrote them; frozen: of one user's keys, what
    opens no new session until somebody confirms it; note: why nothing is there, where there is no such account, the
    user is disabled, or their keys are frozen.
    """

    items: tuple[Way, ...]
    next: str | None
    unknown: tuple[str, ...]
    frozen: tuple[tuple[Server, Reason], ...] = ()
    note: str | None = None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which ways are asked for: as an account, with a key, after a place; None for any."""

    account: str | None
    fingerprint: str | None = None
    after: tuple[Any, ...] | None = None

    def of(self, server: Server, decision: Decision) -> list[tuple[Server, Reason]]:
        """Those into a server, in order."""
        refused = {of_public_key(public_key) for public_key in decision.revoked}
        ways = [
            (server, reason)
            for reason in decision.reasons
            if reason.fingerprint not in refused
            and self.account in (None, reason.username)
            and self.fingerprint in (None, reason.fingerprint)
        ]
        ways.sort(key=lambda way: _place(*way))
        return [way for way in ways if self.after is None or _place(*way) > self.after]


EVERYBODY = slice(None)


@dataclass(frozen=True, slots=True)
class AccessMap:
    """A page of servers and who can log in there. people: all of them by name, last None for keys that nobody
    registered; ways: of those people who were asked for; unknown: servers of which nothing can be said, and why.
    """

    servers: Page[Server]
    people: tuple[str | None, ...]
    ways: tuple[Way, ...]
    unknown: tuple[tuple[Server, str], ...]


@dataclass(frozen=True, slots=True)
class Names:
    """What the users and the groups are called that reasons are for, and who registered the keys of credentials."""

    users: Mapping[int, str]
    groups: Mapping[int, str]
    owners: Mapping[str, str]

    def user(self, reason: Reason) -> str | None:
        """Whose key it is, None where no user registered it."""
        key = reason.user_key
        return self.owners.get(reason.fingerprint) if key is None else self.users.get(key.user_id)

    def way(self, server: Server, reason: Reason, last_used_at: datetime | None) -> Way:
        """A reason with the names that people know."""
        group = reason.grant.group_id if reason.grant else None
        return Way(
            server=server,
            reason=reason,
            user=self.user(reason),
            group=None if group is None else self.groups.get(group),
            last_used_at=last_used_at,
        )


def find(
    instance: Instance,
    actor: Actor,
    *,
    server: str | None = None,
    system_user: str | None = None,
    user: str | None = None,
    fingerprint: str | None = None,
    cursor: str = "",
    limit: int = PER_PAGE,
) -> Ways:
    """Who can log in on a server, or where a user can, as the hosts are told at this moment; by server and account.

    server: a name or an id; user: a name, or "me"; at least one of them. fingerprint: with this key alone. cursor: next
    of the page before. What ended or
    has not begun, who is disabled, keys that are refused and rows that are not as Keyrack wrote them open nothing. A
    user sees all of their own. Raises Refusal INVALID, MISSING, FORBIDDEN, or UNAVAILABLE where nothing can be said
    of a server.
    """
    if user == ONESELF and actor.user_id is not None:
        user = actor.name
    action = "iam:self" if user is not None and is_oneself(actor, user) else "access:read"
    with Attempt(instance, actor, action, "see who can log in", target_kind="access") as attempt:
        if server is None and user is None:
            raise invalid("server", "Name a server, a user, or both.")
        account = None if system_user is None else validation.account(system_user, field="system_user")
        after = cursors.read(cursor, _PLACE) if cursor else None
        wanted = _Wanted(account, fingerprint, after)
        return attempt.read(lambda connection: _find(instance, connection, actor, server, user, wanted, limit))


def of_hosts(
    instance: Instance,
    actor: Actor,
    *,
    search: str = "",
    tag: str | None = None,
    system_user: str | None = None,
    users: frozenset[str] | None = None,
    people: slice = EVERYBODY,
    last_uses: bool = True,
    cursor: str = "",
    limit: int = PER_PAGE,
) -> AccessMap:
    """Who can log in on each server of a page of them, by few questions for all of the page.

    search: part of a server's name or address; tag: that the servers have; system_user: as this one alone; users: of
    these alone, by name; people: whose ways are told, by their places among all who can log in there; last_uses:
    whether these are asked for; cursor: of the page before. Raises Refusal INVALID or FORBIDDEN.
    """
    with Attempt(instance, actor, "access:read", "see who can log in", target_kind="access") as attempt:
        after = cursors.place(cursor, int)
        account = None if system_user is None else validation.account(system_user, field="system_user")

        def question(connection: Connection) -> AccessMap:
            page = servers.find(
                connection, actor.workspace_id, search=search, tag=tag, offset=0, limit=limit, after=after
            )
            access_map, unknown = into(instance, connection, page.items, account)
            names = names_of(connection, actor, access_map)
            by_person: dict[str | None, list[tuple[Server, Reason]]] = {}
            for place in access_map:
                who = names.user(place[1])
                if users is None or who in users:
                    by_person.setdefault(who, []).append(place)
            all_people = sorted(by_person, key=lambda who: (who is None, who or ""))
            places = [place for who in all_people[people] for place in by_person[who]]
            ways = ways_of(connection, actor, places, names, last_uses=last_uses)
            return AccessMap(page, tuple(all_people), tuple(ways), unknown)

        return attempt.read(question)


def into(
    instance: Instance, connection: Connection, hosts: Iterable[Server], account: str | None = None
) -> tuple[list[tuple[Server, Reason]], tuple[tuple[Server, str], ...]]:
    """All reasons that let in to some servers, and those of which nothing can be said, and why; within a question that
    somebody asks already, which writes nothing meanwhile. account: as this one alone.
    """
    places, now = list(hosts), instance.now()
    found: list[tuple[Server, Reason]] = []
    unknown: list[tuple[Server, str]] = []
    with batch(connection, [server.id for server in places]):
        for server in places:
            try:
                found += _of_server(instance, connection, server, now, account)
            except Refusal as refusal:
                if refusal.kind is not Kind.UNAVAILABLE:
                    raise
                unknown.append((server, refusal.message))
    return found, tuple(unknown)


def _find(
    instance: Instance,
    connection: Connection,
    actor: Actor,
    server: str | None,
    user: str | None,
    wanted: _Wanted,
    limit: int,
) -> Ways:
    after = wanted.after
    now = instance.now()
    person = None if user is None else user_named(connection, actor, user)
    whose = None if person is None else _whose(connection, person)
    named = None if server is None else server_named(connection, actor, server)
    if named is not None:
        places: Sequence[int] = (named.id,)
    else:
        assert whose is not None
        places = sorted(
            rows.servers_with_credentials(connection, actor.workspace_id, whose.fingerprints, now)
            | grants.servers_of_user(connection, whose.user_id)
        )
    found: list[tuple[Server, Reason]] = []
    frozen: list[tuple[Server, Reason]] = []
    unknown: list[str] = []
    for server_id in places:
        if after is not None and server_id < after[0]:
            continue
        one = named or servers.by_id(connection, server_id)
        if one is None or one.workspace_id != actor.workspace_id:
            continue
        try:
            decision = access.decide(instance, connection, one, now, whose, ways_alone=True)
            found += wanted.of(one, decision)
            frozen += ((one, reason) for reason in decision.frozen if whose is not None)
        except Refusal as refusal:
            if refusal.kind is not Kind.UNAVAILABLE or named is not None:
                raise
            unknown.append(one.name)
        if len(found) > limit:
            break
    shown = found[:limit]
    rest = cursors.write(_place(*shown[-1])) if len(found) > limit else None
    note = None if found or after is not None else _why_nothing(connection, named, wanted.account, person, frozen)
    ways = ways_of(connection, actor, shown, names_of(connection, actor, shown))
    return Ways(tuple(ways), rest, tuple(unknown), tuple(frozen), note)


def _why_nothing(
    connection: Connection,
    server: Server | None,
    account: str | None,
    person: User | None,
    frozen: Sequence[tuple[Server, Reason]],
) -> str | None:
    """Words where there is no such account, and where somebody is disabled or their keys are frozen; else None."""
    words = None if account is None else _no_account(connection, server, account)
    if words is not None or person is None:
        return words
    if person.disabled_at is not None:
        return f"{person.name} is disabled: nothing of theirs opens anything."
    names = sorted({one.name for one, reason in frozen if account in (None, reason.username)})
    if not names:
        return None
    shown = ", ".join(names[:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")
    return f"Keys of {person.name} are frozen on {shown}: they open no new session until somebody confirms them."


def _no_account(connection: Connection, server: Server | None, account: str) -> str | None:
    """Words where a server has no such account; None where it has, or none is named."""
    if server is None or servers.have_account(connection, (server.id,), account):
        return None
    held = servers.find_system_users(connection, server.id, offset=0, limit=MOST_NAMED)
    names = ", ".join(one.username for one in held.items) + (", …" if held.total > MOST_NAMED else "")
    return f"Host {server.name} has no account {account!r}; it has {names or 'none'}."


def _of_server(
    instance: Instance, connection: Connection, server: Server, now: datetime, account: str | None
) -> list[tuple[Server, Reason]]:
    """All ways into a server, in order."""
    decision = access.decide(instance, connection, server, now, ways_alone=True)
    return _Wanted(account).of(server, decision)


def _place(server: Server, reason: Reason) -> tuple[int, str, str, str, int]:
    of = reason.credential or reason.grant
    assert of is not None
    return server.id, reason.username, reason.fingerprint, type(of).__name__, of.id


def names_of(connection: Connection, actor: Actor, entries: Iterable[tuple[Server, Reason]]) -> Names:
    """What is called what, of some reasons."""
    reasons = [reason for _, reason in entries]
    entered = sorted({reason.fingerprint for reason in reasons if reason.credential})
    return Names(
        users=user_rows.user_names(connection, {reason.user_key.user_id for reason in reasons if reason.user_key}),
        groups=group_rows.group_names(
            connection, {reason.grant.group_id for reason in reasons if reason.grant and reason.grant.group_id}
        ),
        owners=key_owners.names(connection, actor.workspace_id, entered),
    )


def ways_of(
    connection: Connection,
    actor: Actor,
    reasons: Sequence[tuple[Server, Reason]],
    names: Names,
    *,
    last_uses: bool = True,
) -> Iterator[Way]:
    """The reasons with the names, and the last uses where these are asked for."""
    used = _last_uses(connection, actor, {reason.fingerprint for _, reason in reasons}) if last_uses else {}
    for server, reason in reasons:
        yield names.way(server, reason, used.get((server.id, reason.fingerprint)))


def _last_uses(
    connection: Connection, actor: Actor, fingerprints: Iterable[str]
) -> dict[tuple[int | None, str], datetime]:
    """When keys were last used, by server and key."""
    return {
        (use.server_id, fingerprint): use.at
        for fingerprint, all_uses in uses.of_keys(connection, actor.workspace_id, fingerprints).items()
        for use in all_uses
    }


def _whose(connection: Connection, user: User) -> Whose:
    held = sorted({key.fingerprint for key in user_keys.keys_of_user(connection, user.id) if key.fingerprint})
    owners = key_owners.names(connection, user.workspace_id, held)
    return Whose(user.id, tuple(fingerprint for fingerprint in held if owners.get(fingerprint) == user.name))
