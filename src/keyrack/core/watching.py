"""Notices that something changed which an open page shows, for many pages by few questions; must not tell what it is.

The page then asks for it by itself, and is checked as ever.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from keyrack import policy
from keyrack.core.hosts.last_seen import is_recent
from keyrack.core.instance import Instance
from keyrack.core.lookups import is_oneself, user_named
from keyrack.core.work import Attempt
from keyrack.model import Actor, has_ended
from keyrack.store import watching as rows
from keyrack.store.engine.prepared import Row
from keyrack.store.keys import grants
from keyrack.store.keys.access import servers_with_credentials

MAX_SERVERS = 200
MAX_WHOLE = 5
"""For up to so many servers, logins and what hosts report are watched too."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What a page shows.

    servers: ids; user_id: whose keys, and the servers that these open, or None; requests: requests for access, of one
    user (requests_of) or, for None, of everybody.
    """

    workspace_id: int
    servers: tuple[int, ...] = ()
    user_id: int | None = None
    requests: bool = False
    requests_of: int | None = None

    @property
    def is_anything(self) -> bool:
        """Whether there is anything to watch."""
        return bool(self.servers or self.user_id or self.requests)


def watch(
    instance: Instance,
    actor: Actor,
    *,
    servers: Iterable[int] = (),
    user: str | None = None,
    requests: bool = False,
) -> Watched:
    """What to watch for somebody, who must have the right to see it. servers: ids, the first MAX_SERVERS count; user:
    a name.

    Raises Refusal FORBIDDEN or MISSING.
    """
    wanted = tuple(sorted(set(servers)))[:MAX_SERVERS]
    if wanted:
        with Attempt(instance, actor, "servers:read", "watch hosts", target_kind="server"):
            pass
    user_id = None
    if user is not None:
        action = "iam:self" if is_oneself(actor, user) else "people:read"
        with Attempt(instance, actor, action, "watch where a user can log in", target_kind="user") as attempt:
            user_id = attempt.read(lambda connection: user_named(connection, actor, user)).id
    requests_of = None
    if requests:
        with Attempt(instance, actor, "requests:ask", "watch requests for access", target_kind="request"):
            requests_of = None if policy.may(actor, "grants:read") is None else actor.user_id or 0
    return Watched(actor.workspace_id, wanted, user_id, requests, requests_of)


def marks(instance: Instance, watched: Collection[Watched]) -> dict[Watched, Hashable]:
    """For each a mark that differs once something has changed."""
    now = instance.now()
    return instance.database.read(lambda connection: _marks(connection, watched, now))


def _marks(connection: Connection, watched: Collection[Watched], now: datetime) -> dict[Watched, Hashable]:
    of_users = {one.user_id: _of_user(connection, one, now) for one in watched if one.user_id is not None}
    places = {
        one: frozenset(one.servers) | (of_users[one.user_id][1] if one.user_id else frozenset()) for one in watched
    }
    states = {row.id: row for row in rows.states(connection, sorted(set().union(*places.values())))}
    whole = sorted({server for one in watched if len(one.servers) <= MAX_WHOLE for server in one.servers})
    more: dict[int, list[Hashable]] = {}
    for row in rows.facts_of(connection, whole):
        more.setdefault(row.id, []).append(str(row.facts))
    for row in rows.logins(connection, whole):
        more.setdefault(row.server_id, []).append((row.id, row.ending))
    asked = {(one.workspace_id, one.requests_of) for one in watched if one.requests}
    requests = {one: tuple((row.id, row.state) for row in rows.requests(connection, *one)) for one in asked}
    return {
        one: (
            tuple(_state(states[place], one, now) for place in sorted(places[one]) if place in states),
            _whole(one, states, more),
            of_users[one.user_id][0] if one.user_id else None,
            requests.get((one.workspace_id, one.requests_of)) if one.requests else None,
        )
        for one in watched
    }


def _whole(watched: Watched, states: Mapping[int, Row], more: Mapping[int, Sequence[Hashable]]) -> Hashable:
    """What the hosts of a few servers report; nothing of other workspaces."""
    if len(watched.servers) > MAX_WHOLE:
        return None
    own = (id for id in watched.servers if id in states and states[id].workspace_id == watched.workspace_id)
    return tuple((id, *more.get(id, ())) for id in own)


def _of_user(connection: Connection, watched: Watched, now: datetime) -> tuple[Hashable, frozenset[int]]:
    """A mark of a user's keys and of how many servers these open, and those servers, as far as a page shows them."""
    assert watched.user_id is not None
    keys = rows.keys(connection, watched.user_id)
    prints = sorted({row.fingerprint for row in keys if row.fingerprint})
    places = grants.servers_of_user(connection, watched.user_id)
    places |= servers_with_credentials(connection, watched.workspace_id, prints, now)
    mark = tuple((tuple(row.values()), has_ended(row.expires_at, now)) for row in keys)
    return (mark, len(places)), frozenset(sorted(places)[:MAX_SERVERS])


def _state(row: Row, watched: Watched, now: datetime) -> Hashable:
    if row.workspace_id != watched.workspace_id:
        return None
    online = is_recent(row.seen_at, now)
    return (row.id, row.revision, row.applied_revision, row.enrolled_at, row.mode, row.copied_at, online)
