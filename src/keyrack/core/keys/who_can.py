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
from keyrack.core.keys.access import Decision, Reason, UserKeys
from keyrack.core.lookups import ONESELF, is_oneself, server_named, user_named
from keyrack.core.work import Attempt
from keyrack.errors import Kind, Refusal, invalid
from keyrack.model import Actor, Page, Server, User
from keyrack.ssh.fingerprint import of_public_key
from keyrack.store.hosts import servers, system_users
from keyrack.store.keys import access as rows
from keyrack.store.keys import grants, key_owners, user_keys, uses
from keyrack.store.people import groups as group_rows
from keyrack.store.people import users as user_rows
from keyrack.store.per_server import batch

PER_PAGE = 50
MAX_NAMED = 10
_PLACE = (int, str, str, str, int)


@dataclass(frozen=True, slots=True)
class Way:
    """One way in: as a system user of a server, with a key, for a reason, which is a credential or a grant.

    user: who registered the key, None where nobody did; group: through which a grant lets the user in, None for any
    other way; last_used_at: when the key was last used on this server, as whichever system user.
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
        """Why the host says that its sshd refuses the key all the same; "" where it does not, None where it has not
        said.
        """
        return refused_logins.of(self.server).why(self.reason.username, self.reason.fingerprint)


@dataclass(frozen=True, slots=True)
class Ways:
    """A page of ways in.

    next: the cursor of the next page, None at the end; unknown: names of servers within this page about which nothing
    can be said, as their rows are not as Keyrack wrote them; frozen: keys of the user asked about that open no new
    session until somebody confirms them; note: why the page is empty (no such account, user disabled, keys frozen),
    else None.
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
    """A page of servers, and who can log in there.

    people: the names of all of them, sorted, and None last for keys that nobody registered; ways: those of the people
    asked for; unknown: servers about which nothing can be said, and why.
    """

    servers: Page[Server]
    people: tuple[str | None, ...]
    ways: tuple[Way, ...]
    unknown: tuple[tuple[Server, str], ...]


@dataclass(frozen=True, slots=True)
class Names:
    """Names for some reasons: of users and groups by id, and of who registered a key by fingerprint."""

    users: Mapping[int, str]
    groups: Mapping[int, str]
    owners: Mapping[str, str]

    def user(self, reason: Reason) -> str | None:
        """Who registered the key of a reason, None where nobody did."""
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
    """Who can log in on a server, or where a user can, as hosts are told at this moment; by server and account.

    server: a name or an id; user: a name, or "me"; at least one of the two. fingerprint: with this key alone. cursor:
    next of the page before. Nothing is opened by what has ended or not begun, by disabled users, revoked keys, and rows
    that are not as Keyrack wrote them. Everybody may ask about themselves. Raises Refusal INVALID, MISSING, FORBIDDEN,
    or UNAVAILABLE where nothing can be said about the server that was named.
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
    """Who can log in on each server of a page, asked by few questions for the whole page.

    search: part of a server's name or address; tag: only servers that have it; system_user: only this account; users:
    only people with these names; people: whose ways are in the answer, by position among all who can log in there;
    last_uses: whether the answer has these; cursor: of the page before. Raises Refusal INVALID or FORBIDDEN.
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
    """All reasons that let somebody in on some servers, and the servers about which nothing can be said, with why.

    account: only this one. Call it within a read: nothing may be written between its questions.
    """
    asked, now = list(hosts), instance.now()
    ways_in: list[tuple[Server, Reason]] = []
    unknown: list[tuple[Server, str]] = []
    with batch(connection, [server.id for server in asked]):
        for server in asked:
            try:
                ways_in += _of_server(instance, connection, server, now, account)
            except Refusal as refusal:
                if refusal.kind is not Kind.UNAVAILABLE:
                    raise
                unknown.append((server, refusal.message))
    return ways_in, tuple(unknown)


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
    of_user = None if person is None else _keys_of(connection, person)
    named = None if server is None else server_named(connection, actor, server)
    if named is not None:
        server_ids: Sequence[int] = (named.id,)
    else:
        assert of_user is not None
        server_ids = sorted(
            rows.servers_with_credentials(connection, actor.workspace_id, of_user.fingerprints, now)
            | grants.servers_of_user(connection, of_user.user_id)
        )
    ways_in: list[tuple[Server, Reason]] = []
    frozen: list[tuple[Server, Reason]] = []
    unknown: list[str] = []
    for server_id in server_ids:
        if after is not None and server_id < after[0]:
            continue
        one = named or servers.by_id(connection, server_id)
        if one is None or one.workspace_id != actor.workspace_id:
            continue
        try:
            decision = access.decide(instance, connection, one, now, of_user, ways_alone=True)
            ways_in += wanted.of(one, decision)
            frozen += ((one, reason) for reason in decision.frozen if of_user is not None)
        except Refusal as refusal:
            if refusal.kind is not Kind.UNAVAILABLE or named is not None:
                raise
            unknown.append(one.name)
        if len(ways_in) > limit:
            break
    shown = ways_in[:limit]
    next_cursor = cursors.write(_place(*shown[-1])) if len(ways_in) > limit else None
    note = None if ways_in or after is not None else _why_nothing(connection, named, wanted.account, person, frozen)
    ways = ways_of(connection, actor, shown, names_of(connection, actor, shown))
    return Ways(tuple(ways), next_cursor, tuple(unknown), tuple(frozen), note)


def _why_nothing(
    connection: Connection,
    server: Server | None,
    account: str | None,
    person: User | None,
    frozen: Sequence[tuple[Server, Reason]],
) -> str | None:
    """Why a page is empty: no such account, the user is disabled, or their keys are frozen; None for any other
    reason.
    """
    words = None if account is None else _no_account(connection, server, account)
    if words is not None or person is None:
        return words
    if person.disabled_at is not None:
        return f"{person.name} is disabled: nothing of theirs opens anything."
    names = sorted({one.name for one, reason in frozen if account in (None, reason.username)})
    if not names:
        return None
    shown = ", ".join(names[:MAX_NAMED]) + (", …" if len(names) > MAX_NAMED else "")
    return f"Keys of {person.name} are frozen on {shown}: they open no new session until somebody confirms them."


def _no_account(connection: Connection, server: Server | None, account: str) -> str | None:
    """Words where the server has no such account; None where it has, or no server is named."""
    if server is None or system_users.have_account(connection, (server.id,), account):
        return None
    held = system_users.find(connection, server.id, offset=0, limit=MAX_NAMED)
    names = ", ".join(one.username for one in held.items) + (", …" if held.total > MAX_NAMED else "")
    return f"Host {server.name} has no account {account!r}; it has {names or 'none'}."


def _of_server(
    instance: Instance, connection: Connection, server: Server, now: datetime, account: str | None
) -> list[tuple[Server, Reason]]:
    """All ways into a server, in order."""
    decision = access.decide(instance, connection, server, now, ways_alone=True)
    return _Wanted(account).of(server, decision)


def _place(server: Server, reason: Reason) -> tuple[int, str, str, str, int]:
    opened_by = reason.credential or reason.grant
    assert opened_by is not None
    return server.id, reason.username, reason.fingerprint, type(opened_by).__name__, opened_by.id


def names_of(connection: Connection, actor: Actor, entries: Iterable[tuple[Server, Reason]]) -> Names:
    """The names for some reasons."""
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
    """The reasons with their names, and with the last uses unless these are left out."""
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


def _keys_of(connection: Connection, user: User) -> UserKeys:
    held = sorted({key.fingerprint for key in user_keys.keys_of_user(connection, user.id) if key.fingerprint})
    owners = key_owners.names(connection, user.workspace_id, held)
    return UserKeys(user.id, tuple(fingerprint for fingerprint in held if owners.get(fingerprint) == user.name))
